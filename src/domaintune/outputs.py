"""A file of one JSON object a line that is written row by row, and gone on with where a process was killed."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from domaintune.config import RunError, UsageError
from domaintune.writing import write_whole


class Output:
    """Rows in whole lines, and beside them a file that says what they were made from.

    Args:
        file: where to.
        made_from: plain values; rows made from others are not gone on with.
        fresh: whether to start over.
    """

    def __init__(self, file: Path, made_from: dict[str, Any], fresh: bool) -> None:
        self.file, self.made_from, self.fresh = file, made_from, fresh
        self.beside = file.with_name(f"{file.name}.made_from.json")

    def begin(self, multiple: int) -> int:
        """Makes the file ready to be added to.

        Args:
            multiple: rows are kept in such groups, since they were predicted so.

        Returns:
            how many rows of an earlier process are kept.

        Raises:
            UsageError: the file holds something else, or can't be written.
        """
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            if self.fresh or not self.file.exists():
                write_whole(self.beside, json.dumps(self.made_from, indent=2) + "\n")
                self.file.write_bytes(b"")
                return 0
            self._refuse_another()
            return self._keep(multiple)
        except OSError as error:
            raise UsageError(f"output={self.file}: can't be written ({error.strerror or error})") from error

    def _refuse_another(self) -> None:
        if not self.beside.exists():
            raise UsageError(f"output={self.file} is there and was not made by this program; fresh=true replaces it")
        earlier = json.loads(self.beside.read_text(encoding="utf-8"))
        if changed := [key for key in self.made_from if earlier.get(key) != self.made_from[key]]:
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
