"""Keeps in a run's folder what its command printed."""

import os
import re
import sys
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO, cast

LINES_BEFORE = 1000  # kept in memory until the run's folder is known
# CSI, OSC and the shorter escape sequences of ECMA-48 (https://ecma-international.org/publications-and-standards).
ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")


class OutputLog:
    """The lines that standard output and standard error show in the end.

    Lines wait in memory until `keep` names their file. A bar that draws over its line counts as it stood last.
    """

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=LINES_BEFORE)
        self._file: Path | None = None

    def keep(self, file: Path) -> None:
        """Appends the lines so far to the file, and from now on each as it is printed."""
        if _is_standard_output(file):
            return  # of a sweep's trial: its output is written there anyway
        self._file = file
        self._append("".join(self._lines))
        self._lines.clear()

    def add(self, line: str) -> None:
        line = ESCAPES.sub("", line.rstrip("\r").rsplit("\r", 1)[-1]).rstrip() + "\n"
        if self._file is None:
            self._lines.append(line)
        else:
            with suppress(OSError):  # a full disk ends a run where it can't save, not where it can't tell
                self._append(line)

    def _append(self, text: str) -> None:
        assert self._file is not None
        with self._file.open("a", encoding="utf-8", errors="backslashreplace") as out:
            out.write(text)


class CopiedStream:
    """A text stream whose lines go to a log as well; all else is the stream's own.

    Where nobody reads it any more, as when a terminal is closed or `| tee` has ended, lines go to the log alone.
    """

    def __init__(self, stream: TextIO, log: OutputLog) -> None:
        self._stream, self._log, self._begun = stream, log, ""

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except OSError:
            self._let_go()
        *lines, begun = (self._begun + text).split("\n")
        for line in lines:
            self._log.add(line)
        self._begun = begun[begun.rstrip("\r").rfind("\r") + 1 :]
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._let_go()

    def _let_go(self) -> None:
        """What the stream still holds would be written at the end of the process, and fail again."""
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


_of_process = OutputLog()


def copy_output() -> None:
    """Has this process's standard output and standard error logged; `keep_output` says where."""
    sys.stdout = cast(TextIO, CopiedStream(sys.stdout, _of_process))
    sys.stderr = cast(TextIO, CopiedStream(sys.stderr, _of_process))


def keep_output(file: Path) -> None:
    """Writes to the file what this process has printed and prints, where `copy_output` was called."""
    if isinstance(sys.stdout, CopiedStream):
        _of_process.keep(file)


def _is_standard_output(file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(1), file.stat())
    except OSError:
        return False
