"""What a sweep found, at any time, also while it runs: a ranking with verdicts, and why trials failed.

    python scripts/leaderboard.py name=rates

name=NAME      a sweep by its name or its folder
paths.sweeps=  where sweeps are, by default logs/sweeps

Writes leaderboard.csv and report.html, one page to look at, into the sweep's folder.
"""

import sys
from pathlib import Path

from domaintune.arguments import split_arguments
from domaintune.config import UsageError
from domaintune.exiting import told
from domaintune.leaderboard import tell
from domaintune.settings import PathsConfig


def sweep_folder(name: str, sweeps: str) -> Path:
    """The folder of a sweep by its name or by its path. Raises UsageError where there is none."""
    for folder in (Path(sweeps) / name, Path(name).expanduser()):
        if folder.is_dir():
            return folder
    raise UsageError(f"name={name}: no sweep of this name in {sweeps}, and no such folder")


@told
def main() -> None:
    usage = __doc__ or ""
    settings = split_arguments(sys.argv[1:], usage)
    name, sweeps = settings.pop("name", None), settings.pop("paths.sweeps", PathsConfig.sweeps)
    if settings or not name:
        raise UsageError(f"there is no argument {next(iter(settings))}" if settings else f"give name=NAME\n{usage}")
    tell(sweep_folder(name, sweeps))


if __name__ == "__main__":
    main()
