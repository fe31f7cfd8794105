"""Write export/, the folder that plain transformers opens, for a run that has not finished, from its best.ckpt.

    python scripts/export.py run=NAME

run=NAME     a run by its name or folder, or a sweep's trial as SWEEP/TRIAL
paths.logs=  where runs are, as train was told

A finished run has its export/ already. Resumed, the run replaces it when it ends.
"""

import sys
from dataclasses import dataclass, field

from domaintune.cli.arguments import run_folder, split_arguments, typed
from domaintune.cli.exiting import told
from domaintune.config.composing import PathsArguments, default_config
from domaintune.config.programs import usage_of
from domaintune.errors import UsageError
from domaintune.run_exports import export_run


@dataclass
class Arguments:
    run: str = ""
    paths: PathsArguments = field(default_factory=PathsArguments)


@told
def main() -> None:
    usage, arguments = __doc__ or "", Arguments()
    typed(arguments, split_arguments(sys.argv[1:], usage))
    if not arguments.run:
        raise UsageError(f"give run=NAME\n{usage_of(usage)}")
    print(export_run(run_folder(arguments.run, default_config(paths=arguments.paths).paths)))
