"""What a sweep says while it runs: a live table on a terminal, a line for each event elsewhere."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from domaintune.config.wording import escaped_lines
from domaintune.files.writing import end_of
from domaintune.runs.folder import RunFolder
from domaintune.sweeps.recording import SweepFolder
from domaintune.sweeps.trials import TrialRecord

PROGRESS = re.compile(r"step ([\d,]+(?: of [\d,]+)?)(?:, (.+?) left)?(?:  (.*))?")  # a line of callbacks/progress.py
REFRESH_SECONDS = 0.5
WIDTH = 160  # where the output is no terminal
COLOURS = {"finished": "green", "failed": "red", "interrupted": "yellow", "running": "cyan", "pending": "dim"}
FIRST = ("running", "failed", "interrupted", "pending", "finished")


class TrialTable:
    """Trials with their state, step, metric and time left.

    Args:
        sweep: what is shown.

    Attributes:
        metric: by which the trials are compared.
    """

    def __init__(self, sweep: SweepFolder) -> None:
        self.sweep = sweep
        self.metric = "metric"
        self.console = Console(highlight=False)
        if not self.console.is_terminal:
            self.console.width = WIDTH
        self._live: Live | None = None
        self._drawn_at = 0.0

    @contextmanager
    def shown(self) -> Iterator[None]:
        """While the block runs; at the end the table stays, however it ends."""
        if not self.console.is_terminal:
            try:
                yield
            finally:
                if self.sweep.asked:
                    self.console.print(self._table())
            return
        with Live(self._table(), console=self.console, auto_refresh=False) as self._live:
            try:
                yield
            finally:
                self._live.update(self._table(), refresh=True)
                self._live = None

    def event(self, name: str) -> None:
        """A trial has another state."""
        trial = self.sweep.trials[name]
        if not self.console.is_terminal:
            what = {"running": "started", "pending": "queued"}.get(trial.state) or _ended(trial)
            self.say(f"trial {trial.number + 1}  {name}  {what}")
        self.refresh(at_once=True)

    def refresh(self, at_once: bool = False) -> None:
        """Draws the table anew, now and then."""
        if self._live is not None and (at_once or time.monotonic() - self._drawn_at >= REFRESH_SECONDS):
            self._drawn_at = time.monotonic()
            self._live.update(self._table(), refresh=True)

    def say(self, text: str) -> None:
        """A line above the table."""
        self.console.print(Text(escaped_lines(text)), soft_wrap=True)

    def _table(self) -> Table:
        table = Table()
        # Where there is no live table, an event has said why already.
        why = ("why",) if self.console.is_terminal else ()
        for column in ("trial", "state", "step", self.metric, "time", *why):
            table.add_column(column, overflow="fold")  # names that are cut off can't be told apart
        trials = sorted(
            ((name, self.sweep.trials[name]) for name in self.sweep.asked),
            key=lambda each: (FIRST.index(each[1].state), each[1].number),
        )
        for name, trial in trials:
            step, metric, left = self._progress(name) if trial.state == "running" else (self._steps(name), "", "")
            if trial.value is not None:
                metric = f"{trial.value:.4g}"
            taken = left or (f"{trial.seconds:.0f} s" if trial.seconds else "")
            state = Text(trial.state, style=COLOURS[trial.state])
            told = [Text(escaped_lines(trial.why or ""))] if why else []
            table.add_row(Text(name), state, step, Text(metric), taken, *told)
        return table

    def _steps(self, name: str) -> str:
        """How many steps a trial has made that has finished."""
        steps = (RunFolder(self.sweep.folder / name).earlier() or {}).get("steps")
        return "" if steps is None else f"{steps:,}"

    def _progress(self, name: str) -> tuple[str, str, str]:
        """Step, figures and time left of the latest line of progress; empty before there is one."""
        try:
            lines = end_of(self.sweep.folder / name / "output.log").splitlines()
        except OSError:
            return "", "", ""
        for line in reversed(lines):
            if match := PROGRESS.fullmatch(line):
                return match[1], match[3] or "", f"{match[2]} left" if match[2] else ""
        return "", "", ""


def _ended(trial: TrialRecord) -> str:
    value = "" if trial.value is None else f": {trial.value:.4g}"
    why = f": {trial.why}" if trial.why else ""
    return f"{trial.state}{value}{why}, {trial.seconds:.0f} s"
