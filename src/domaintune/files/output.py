"""A file of rows that is written row by row, and resumed where a process was killed: JSON lines, or a CSV table."""

import csv
import errno
import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from domaintune.errors import RunError, UsageError
from domaintune.files.lock import Lock
from domaintune.files.writing import flush, write_whole

MADE_FROM = ".made_from.json"  # how the names of files end that say what others were made from
ROWS = ".rows.jsonl"  # and those that hold the rows of a table until it is complete
COMPLETE = "rows"  # in the first of them: how many there are once all are
OTHER_KINDS = (".tsv", ".parquet", ".conll", ".xlsx", ".gz", MADE_FROM, ROWS)  # what neither of the two may be called


class Output:
    """Rows in whole lines, and beside them a file that says what they were made from.

    A table needs all rows before its columns are known: until then its rows are JSON lines in another file beside it.
    One process at a time writes to a file, while it is used in a `with` statement.

    Args:
        file: where to; a .csv is a table.
        made_from: plain values; rows made from others are not gone on with.
        fresh: whether to start over.
    """

    def __init__(self, file: Path, made_from: dict[str, Any], fresh: bool) -> None:
        self.file, self.made_from, self.fresh = file, made_from, fresh
        self.beside = file.with_name(f"{file.name}{MADE_FROM}")
        self.is_table = file.name.lower().endswith(".csv")
        self.lines = file.with_name(f"{file.name}{ROWS}") if self.is_table else file
        self._lock = Lock(file, file.with_name(f".{file.name}.lock"))

    def check(self) -> None:
        """Raises UsageError where the file can't be written, or holds what is not to be replaced."""
        try:
            if self.file.exists() or self.lines.exists():
                self._refuse_another()
            else:
                _refuse_unwritable(self.file)
        except OSError as error:
            raise self._unwritable(error) from error

    def __enter__(self) -> Self:
        self.check()
        if self.file.parent.is_dir():  # told before anything that takes long
            self._take_lock()
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def _take_lock(self) -> None:
        try:
            self._lock.take()
        except OSError as error:
            raise self._unwritable(error) from error

    def begin(self, multiple: int) -> int:
        """Makes the file ready to be added to.

        Args:
            multiple: rows are kept in such groups, since they were predicted so.

        Returns:
            how many rows of an earlier process are kept.

        Raises:
            UsageError: the file holds something else, can't be written, or is being written by another process.
        """
        self.check()
        self._take_lock()
        self.check()  # another process may have written to it before
        try:
            if self._is_started() and not self.fresh:
                return self._keep(multiple) if self.lines.exists() else self._rows_of_complete_table()
            # In this order: rows that were made otherwise never stand beside what these are made from.
            with self.lines.open("wb") as emptied:
                flush(emptied)
            if self.is_table:
                self.file.unlink(missing_ok=True)
            write_whole(self.beside, json.dumps(self.made_from, indent=2) + "\n")
        except OSError as error:
            raise self._unwritable(error) from error
        return 0

    def _unwritable(self, error: OSError) -> UsageError:
        return UsageError(f"output={self.file}: can't be written ({error.strerror or error})")

    def _is_started(self) -> bool:
        """Whether the file is there and this program made it."""
        return (self.file.exists() or self.lines.exists()) and self.beside.exists()

    def _refuse_another(self) -> None:
        if self.file.exists() and not self.file.is_file():
            inside = f"; take a file in it, as output={self.file / 'predictions.jsonl'}" * self.file.is_dir()
            raise UsageError(f"output={self.file} is no file{inside}")
        if not self._is_started():
            if any(file.exists() and file.stat().st_size for file in (self.file, self.lines)):
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
        with self.lines.open("rb") as lines:
            ends += [lines.tell() for line in iter(lines.readline, b"") if line.endswith(b"\n")]
        rows = len(ends) - 1
        if rows == json.loads(self.beside.read_text(encoding="utf-8")).get(COMPLETE):
            return rows
        kept = rows // multiple * multiple
        os.truncate(self.lines, ends[kept])
        return kept

    def add(self, rows: Iterable[dict[str, Any]]) -> None:
        """Appends rows, and hands them to the disk. Raises RunError where it is full."""
        try:
            # Half a pair of surrogates, which a row may hold, is written as JSON escapes it.
            with self.lines.open("a", encoding="utf-8", errors="backslashreplace") as lines:
                lines.writelines(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
                lines.flush()
                os.fsync(lines.fileno())
        except OSError as error:
            raise RunError(f"output={self.file}: can't be written ({error.strerror or error})") from error

    def finish(self) -> None:
        """Records that all rows are there. A table is made of them: a column for each field, as they first occur.

        Raises:
            RunError: it can't be written.
        """
        if not self.lines.exists():
            return
        try:
            if self.is_table:
                self._write_table()
            else:
                self._record_as_complete(sum(1 for _ in self._read_lines()))
        except OSError as error:
            raise RunError(f"output={self.file}: can't be written ({error.strerror or error})") from error

    def _write_table(self) -> None:
        columns: dict[str, None] = {}
        rows = 0
        for row in self._read_lines():
            columns.update(dict.fromkeys(row))
            rows += 1
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, list(columns))  # ends lines with \r\n, as RFC 4180 has it, and quotes both
        writer.writeheader()
        for row in self._read_lines():
            writer.writerow({name: _cell(value) for name, value in row.items()})
        self._record_as_complete(rows)
        write_whole(self.file, table.getvalue().encode(errors="backslashreplace").decode())
        self.lines.unlink()

    def _record_as_complete(self, rows: int) -> None:
        write_whole(self.beside, json.dumps({**self.made_from, COMPLETE: rows}, indent=2) + "\n")

    def _read_lines(self) -> Iterator[dict[str, Any]]:
        with self.lines.open(encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)

    def _rows_of_complete_table(self) -> int:
        csv.field_size_limit(2**31 - 1)  # the default refuses a text of more than 128 kB
        with self.file.open(encoding="utf-8", newline="") as table:
            rows = sum(1 for _ in csv.DictReader(table))
        if rows != json.loads(self.beside.read_text(encoding="utf-8")).get(COMPLETE):
            raise UsageError(
                f"output={self.file}: {rows} rows are there, and others were written; "
                f"take another output, or fresh=true to replace it"
            )
        return rows


def _cell(value: Any) -> Any:
    """A value as a cell holds it: lists and objects as JSON, and nothing where there is none."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value


def refuse_output(file: Path, inputs: Sequence[str]) -> None:
    """Raises UsageError where a file is one of those that are read, or is called what its rows are not."""
    for written in (file, *(file.with_name(f"{file.name}{end}") for end in (MADE_FROM, ROWS))):
        for read in inputs:
            if _same(written, read):
                raise UsageError(f"output={file}: {written} is one of the inputs ({read}); take another output")
    if suffix := next((suffix for suffix in OTHER_KINDS if file.name.lower().endswith(suffix)), None):
        name = file.name[: -len(suffix)].removesuffix(".jsonl")
        names = (file.with_name(f"{name}{end}") for end in (".jsonl", ".predictions.jsonl"))
        better = next(name for name in names if not any(_same(name, read) for read in inputs))
        raise UsageError(
            f"output={file}: the rows are JSON lines or a .csv table, and no {suffix}; take output={better}"
        )


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
