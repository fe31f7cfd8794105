"""What takes disk in the folders of runs and is no longer needed."""

import glob
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domaintune.files.cache import CONTENTS
from domaintune.runs.folder import RunFolder

MOVED_ASIDE = re.compile(r".+\.before-\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d.*")  # how fresh=true names what it moves
CHECKPOINTS = "checkpoints to train a finished run longer"
ASIDE = "moved aside by fresh=true"
EXPORT = "the model of a run that had not finished when it was asked"


@dataclass(frozen=True)
class Unneeded:
    """What can go of one run.

    Attributes:
        path: the folder of a run, of which `files` go, or one that goes as a whole.
        why: it is there.
        files: of a run that has finished.
    """

    path: Path
    why: str
    files: tuple[Path, ...] = ()

    @property
    def size(self) -> int:
        """In bytes; files with several names count once."""
        files = self.files or tuple(self.path.rglob("*"))
        there = [file.stat() for file in files if file.is_file()]
        return sum({stat.st_ino: stat.st_size for stat in there}.values())

    def remove(self) -> None:
        """Removes it.

        Raises:
            UsageError: another process is at work in its run.
            OSError: it can't be removed.
        """
        if not self.files:
            shutil.rmtree(self.path)
            return
        with RunFolder(self.path).locked():
            for file in self.files if _has_finished(self.path) else ():
                file.unlink(missing_ok=True)


def find_unneeded(folders: Iterable[Path]) -> Iterator[Unneeded]:
    """What no longer is needed of the runs in these folders, at any depth.

    A run that has not finished keeps all that it needs to go on.
    """
    for folder in folders:
        beside = folder.parent.glob(f"{glob.escape(folder.name)}.before-*")
        aside = [path for path in sorted([*folder.rglob("*.before-*"), *beside]) if MOVED_ASIDE.fullmatch(path.name)]
        yield from (Unneeded(path, ASIDE) for path in aside if path.is_dir() and not {*path.parents} & {*aside})
        for file in sorted(folder.rglob("result.json")):
            files = RunFolder(file.parent).only_for_training()
            if files and _has_finished(file.parent) and not {*file.parents} & {*aside}:
                yield Unneeded(file.parent, CHECKPOINTS, tuple(files))


def find_exports(cache: str) -> Iterator[Unneeded]:
    """What `run_exports.model_of_run` keeps in the cache: made again where it is wanted again."""
    for file in sorted(Path(cache, "exports").expanduser().glob(f"*/{CONTENTS}")):
        yield Unneeded(file.parent, EXPORT)


def _has_finished(folder: Path) -> bool:
    if not (folder / "config.yaml").is_file():
        return False
    result: Any = RunFolder(folder).earlier()
    return isinstance(result, dict) and result.get("status") == "finished"
