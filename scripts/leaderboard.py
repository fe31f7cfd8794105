"""What a sweep found, at any time, also while it runs: a ranking with verdicts, and why trials failed.

    python scripts/leaderboard.py name=rates

name=NAME      a sweep by its name or its folder
paths.logs=    where its run's folders are, as train.py was told; paths.sweeps= those of sweeps alone

Writes leaderboard.csv and report.html, one page to look at, into the sweep's folder.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from domaintune.arguments import PathsArguments, default_config, split_arguments, typed
from domaintune.config import UsageError
from domaintune.exiting import told
from domaintune.leaderboard import tell


@dataclass
class Arguments:
    name: str = ""
    paths: PathsArguments = field(default_factory=PathsArguments)


def sweep_folder(name: str, sweeps: str) -> Path:
    """The folder of a sweep by its name or by its path. Raises UsageError where there is none."""
    for folder in (Path(sweeps) / name, Path(name).expanduser()):
        if folder.is_dir():
            return folder
    raise UsageError(f"name={name}: no sweep of this name in {sweeps}, and no such folder")


@told
def main() -> None:
    usage, arguments = __doc__ or "", Arguments()
    typed(arguments, split_arguments(sys.argv[1:], usage))
    if not arguments.name:
        raise UsageError(f"give name=NAME\n{usage}")
    tell(sweep_folder(arguments.name, default_config(paths=arguments.paths).paths.sweeps))


if __name__ == "__main__":
    main()
