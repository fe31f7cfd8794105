"""A trial of a sweep: how it is named, and what became of it. Imports nothing heavy."""

import hashlib
import math
import re
import signal
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from domaintune.errors import RunError, UsageError
from domaintune.runs.folder import RunFolder

LONGEST_NAME = 120  # bytes; file systems end at 255, and TensorBoard's list of runs much earlier
ENDED = ("finished", "failed")  # states in which a trial waits for nothing
STOPPED = {128 + getattr(signal, name) for name in ("SIGHUP", "SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)}
OUT_OF_MEMORY = re.compile(r"MemoryError|out of memory|can't allocate memory|std::bad_alloc")
ERROR_LINE = re.compile(r"(?:error: (.*)|(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt)\b.*)")


@dataclass
class TrialRecord:
    """A line of sweep.json, under the name of the trial's folder."""

    number: int  # in the order of the search
    overrides: list[str] = field(default_factory=list)  # what varies, as one would type it
    state: str = "pending"  # | running | finished | failed | interrupted
    exit: int | None = None  # the exit status of its process, negative for a signal
    why: str | None = None  # it failed, in words
    value: float | None = None  # the monitored metric of its best checkpoint
    seconds: float = 0.0  # over all its starts


def varied_overrides(overrides: Iterable[str], typed: Iterable[str]) -> list[str]:
    """What varies between trials, which is what was not typed with one value; sorted, so that the order is no matter.

    Args:
        overrides: of one trial, as Hydra's sweeper made them.
        typed: the overrides of the command, as in `optim.lr=1e-5,5e-5 seed=1`.
    """
    parser = OverridesParser.create()
    # Of a key that is typed twice, the last counts, as in Hydra's own sweeper.
    varies = {each.get_key_element(): each.is_sweep_override() for each in parser.parse_overrides(list(typed))}
    return sorted(text for text in overrides if varies.get(parser.parse_override(text).get_key_element(), True))


def trial_name(varied: Iterable[str]) -> str:
    """`model=gpt2,optim.lr=5e-05`: a file name that does not depend on the other trials of the sweep.

    Where letters had to be replaced, or much was cut off, a hash keeps names apart.
    """
    text = ",".join(varied) or "single"
    name = re.sub(r"[^\w.=,+@~%-]", "_", text)
    encoded = name.encode()
    if name == text and len(encoded) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{encoded[: LONGEST_NAME - 9].decode(errors='ignore')}-{digest}"


def outcome(
    folder: Path, monitor: str, exit_status: int, output: str, earlier: dict[str, Any]
) -> tuple[str, str | None, float | None]:
    """The state of a trial whose process has ended, why it failed, and its metric.

    Args:
        folder: of the trial.
        output: the end of what its process printed.
        earlier: the result.json that was there before the process was.
    """
    result = RunFolder(folder).earlier() or {}
    status = result.get("status")
    if status == "finished" and (exit_status == 0 or (exit_status != 2 and result != earlier)):
        state, why, value = finished(folder, monitor)
        return state, why or (f"exit status {exit_status} after its end" if exit_status else None), value
    if exit_status in STOPPED and status in ("interrupted", "running"):
        return "interrupted", f"stopped by {signal.Signals(exit_status - 128).name}", None
    if exit_status < 0:
        return "failed", _killed_by(-exit_status, output), None
    error = result.get("error") if status == "failed" and exit_status == 1 else None
    return "failed", _of_error(error) if error else last_error(output) or f"exit status {exit_status}", None


def finished(folder: Path, monitor: str) -> tuple[str, str | None, float | None]:
    """State, why and metric of a trial whose run has finished: a metric that is not finite is a failure."""
    value = (RunFolder(folder).earlier() or {}).get("metrics", {}).get("after", {}).get(monitor)
    if value is None or not math.isfinite(value):
        return "failed", f"{monitor} is {value}", None
    return "finished", None, float(value)


def _killed_by(number: int, output: str) -> str:
    name = signal.Signals(number).name
    if number == signal.SIGKILL:
        return f"killed ({name}): the system does that when memory runs out"
    said = last_error(output) if number == signal.SIGABRT else None
    return f"{name}: {said}" if said else name


def _of_error(error: str) -> str:
    """Of `Class: message`, as a run records it, the first line; without the class where the message is for people."""
    line = error.strip().splitlines()[0]
    for kind in (RunError, UsageError):
        line = line.removeprefix(f"{kind.__name__}: ")
    return _of_memory(line)


def _of_memory(line: str) -> str:
    """In words where memory ran out, which each library says in its own way."""
    return f"out of memory: {line}" if OUT_OF_MEMORY.search(line) else line


def last_error(output: str) -> str | None:
    """The last line that tells of an error, else the last one at all; None where nothing was printed."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    for line in reversed(lines):
        if match := ERROR_LINE.fullmatch(line):
            return _of_memory(match[1] or line)
    return lines[-1] if lines else None
