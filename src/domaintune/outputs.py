"""A file of one JSON object a line that is written row by row, and gone on with where a process was killed."""

import errno
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from domaintune.config import RunError, UsageError
from domaintune.writing import write_whole

MADE_FROM = ".made_from.json"  # how the names of files end that say what others were made from
OTHER_KINDS = (".csv", ".tsv", ".parquet", ".conll", ".xlsx", ".gz", MADE_FROM)  # what rows of JSON must not be called


class Output:
    """Rows in whole lines, and beside them a file that says what they were made from.

    Args:
        file: where to.
        made_from: plain values; rows made from others are not gone on with.
        fresh: whether to start over.
    """

    def __init__(self, file: Path, made_from: dict[str, Any], fresh: bool) -> None:
        self.file, self.made_from, self.fresh = file, made_from, fresh
        self.beside = file.with_name(f"{file.name}{MADE_FROM}")

    def check(self) -> None:
        """Raises UsageError where the file can't be written, or holds what is not to be replaced."""
        try:
            if self.file.exists():
                self._refuse_another()
            else:
                _refuse_unwritable(self.file)
        except OSError as error:
            raise self._unwritable(error) from error

    def begin(self, multiple: int) -> int:
        """Makes the file ready to be added to.

        Args:
            multiple: rows are kept in such groups, since they were predicted so.

        Returns:
            how many rows of an earlier process are kept.

        Raises:
            UsageError: the file holds something else, or can't be written.
        """
        self.check()
        try:
            if self._is_started() and not self.fresh:
                return self._keep(multiple)
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.beside, json.dumps(self.made_from, indent=2) + "\n")
            self.file.write_bytes(b"")
        except OSError as error:
            raise self._unwritable(error) from error
        return 0

    def _unwritable(self, error: OSError) -> UsageError:
        return UsageError(f"output={self.file}: can't be written ({error.strerror or error})")

    def _is_started(self) -> bool:
        """Whether the file is there and this program made it."""
        return self.file.exists() and self.beside.exists()

    def _refuse_another(self) -> None:
        if not self.file.is_file():
            inside = f"; take a file in it, as output={self.file / 'predictions.jsonl'}" * self.file.is_dir()
            raise UsageError(f"output={self.file} is no file{inside}")
        if not self._is_started():
            if self.file.stat().st_size:
                raise UsageError(f"output={self.file} is there and was not made by this program; take another output")
            return
        try:
            earlier = json.loads(self.beside.read_text(encoding="utf-8"))
            changed = [key for key in self.made_from if earlier.get(key) != self.made_from[key]]
        except (ValueError, AttributeError):
            raise UsageError(f"{self.beside} is damaged; take another output") from None
        if changed and not self.fresh:
            raise UsageError(
                f"output={self.file} was made with another {', another '.join(changed)}; "
                f"take another name, or fresh=true to replace it"
            )

    def _keep(self, multiple: int) -> int:
        ends = [0]
        with self.file.open("rb") as lines:
            ends += [lines.tell() for line in iter(lines.readline, b"") if line.endswith(b"\n")]
        kept = (len(ends) - 1) // multiple * multiple
        os.truncate(self.file, ends[kept])
        return kept

    def add(self, rows: Iterable[dict[str, Any]]) -> None:
        """Appends rows, and hands them to the disk. Raises RunError where it is full."""
        try:
            with self.file.open("a", encoding="utf-8") as lines:
                lines.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
                lines.flush()
                os.fsync(lines.fileno())
        except OSError as error:
            raise RunError(f"output={self.file}: can't be written ({error.strerror or error})") from error


def refuse_output(file: Path, inputs: Sequence[str]) -> None:
    """Raises UsageError where a file is one of those that are read, or is called what its rows are not."""
    for written in (file, file.with_name(f"{file.name}{MADE_FROM}")):
        for read in inputs:
            if _same(written, read):
                raise UsageError(f"output={file}: {written} is one of the inputs ({read}); take another output")
    if suffix := next((suffix for suffix in OTHER_KINDS if file.name.lower().endswith(suffix)), None):
        name = file.name[: -len(suffix)].removesuffix(".jsonl")
        names = (file.with_name(f"{name}{end}") for end in (".jsonl", ".predictions.jsonl"))
        better = next(name for name in names if not any(_same(name, read) for read in inputs))
        raise UsageError(f"output={file}: the rows are JSON, one object a line, and no {suffix}; take output={better}")


def _same(written: Path, read: str) -> bool:
    """Whether two paths are one file, through links too."""
    try:
        return os.path.samefile(written, read)
    except OSError:  # what is written isn't there yet: then only its name can be that of an input
        return os.path.realpath(written) == os.path.realpath(read)


def _refuse_unwritable(file: Path) -> None:
    """Raises OSError where no file can be made in a folder, or in the first one above it that is there."""
    folder = next(parent for parent in file.absolute().parents if os.path.lexists(parent))
    if not os.path.isdir(folder):
        raise NotADirectoryError(errno.ENOTDIR, f"{folder} is no folder", str(folder))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, f"{folder} may not be written to", str(folder))
