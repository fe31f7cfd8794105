"""Which of the files in a folder this program wrote itself: they are nobody's data."""

import os
import re
from pathlib import Path

from domaintune.config.checks import read_object
from domaintune.files.cache import CONTENTS
from domaintune.files.output import MADE_FROM, ROWS

# The names that the program gives in the folder of a run and of a sweep: what else lies there is somebody's own.
RUN = {
    *("config.yaml", "result.json", "validation.npz", "checkpoints", "export", "output.log"),
    *("hparams.yaml", "tensorboard"),  # of the logger; the folder as earlier versions had it
}
EVENTS = "events.out.tfevents."  # what names of TensorBoard's files begin with
LEADERBOARD = {"leaderboard.csv", "report.html"}
SWEEP = {*LEADERBOARD, "sweep.json", "optuna.db"}
EMBEDDED = re.compile(r"python-[a-z]+-\d+\.\d+\.\d+-\d+\.jsonl")  # a corpus in the cache folder


class OwnFiles:
    """Predictions, and what lies in the folders of runs and sweeps and in entries of the cache.

    Args:
        searched: a folder. What lies above it isn't looked at.
    """

    def __init__(self, searched: Path) -> None:
        self._searched = searched
        self._names: dict[Path, set[str]] = {}

    def __contains__(self, file: Path) -> bool:
        if is_prediction(file) or EMBEDDED.fullmatch(file.name):
            return True
        path = file
        while path != self._searched and path.parent != path:
            names = self._names_in(path.parent)
            if path.name in names or (names >= RUN and path.name.startswith(EVENTS)):
                return True
            path = path.parent
        return False

    def _names_in(self, folder: Path) -> set[str]:
        if folder not in self._names:
            self._names[folder] = _given_names(folder)
        return self._names[folder]


def _given_names(folder: Path) -> set[str]:
    """The names of files and folders in a folder that the program gave them."""
    names: set[str] = set()
    if "sizes" in read_object(folder / CONTENTS):
        names |= set(os.listdir(folder))
    if (folder / "config.yaml").is_file() and "status" in read_object(folder / "result.json"):
        names |= RUN
    if "trials" in read_object(folder / "sweep.json") or all((folder / name).is_file() for name in LEADERBOARD):
        names |= SWEEP
    return names


def is_prediction(file: Path) -> bool:
    """Whether the command predict wrote it: predictions, or what they were made from."""
    return file.name.endswith(MADE_FROM) or os.path.exists(f"{str(file).removesuffix(ROWS)}{MADE_FROM}")
