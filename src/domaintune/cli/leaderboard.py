"""What a sweep found, at any time, also while it runs: a ranking with verdicts, and why trials failed.

    python scripts/leaderboard.py name=rates

name=NAME      a sweep by its name or its folder
paths.logs=    where its run's folders are, as train was told; paths.sweeps= those of sweeps alone

Writes leaderboard.csv and report.html, one page to look at, into the sweep's folder.
"""

import sys
from dataclasses import dataclass, field

from domaintune.cli.arguments import split_arguments, sweep_folder, typed
from domaintune.cli.exiting import told
from domaintune.config.composing import PathsArguments, default_config
from domaintune.config.programs import usage_of
from domaintune.errors import UsageError
from domaintune.sweeps.leaderboard import tell


@dataclass
class Arguments:
    name: str = ""
    paths: PathsArguments = field(default_factory=PathsArguments)


@told
def main() -> None:
    usage, arguments = __doc__ or "", Arguments()
    typed(arguments, split_arguments(sys.argv[1:], usage))
    if not arguments.name:
        raise UsageError(f"give name=NAME\n{usage_of(usage)}")
    tell(sweep_folder("name", arguments.name, default_config(paths=arguments.paths).paths))
