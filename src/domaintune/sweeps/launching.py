"""What every launcher does: the trials of a batch are checked, those that have finished left out, the others run."""

import json
import math
import os
import re
import sys
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf

from domaintune.config import UsageError
from domaintune.recording import RunFolder
from domaintune.settings import Config
from domaintune.sweeps.ending import Ending
from domaintune.sweeps.preflight import Hashes, Preflight, check_varied, listed
from domaintune.sweeps.recording import Sweep
from domaintune.sweeps.table import TrialTable
from domaintune.sweeps.trials import Trial, finished, trial_name, varied_overrides

LINE_SECONDS = 5  # between two lines of a trial's progress, which the table reads
PLAIN = re.compile(r"[A-Za-z_][\w.-]*")  # Hydra's grammar takes it without quotes, unless it is one of the next
WORDS = ("true", "false", "null", "nan", "inf")


@dataclass
class Planned:
    """A trial, before anything of it is started or recorded."""

    name: str
    overrides: list[str]
    varied: list[str]
    config: Config | None = None
    finished: bool = False
    problem: str | None = None


@dataclass
class Start:
    """A trial that is due."""

    name: str
    trial: Trial
    folder: Path
    config: Config
    command: list[str]


class TrialLauncher(Launcher):
    """A launcher of Hydra that runs trials and records them; how they are started is a subclass's.

    Attributes:
        sweep: the record of the trials.
        ending: what ends the sweep early.
        strict: whether one wrong config keeps all trials from starting; a search counts it as a bad trial.
    """

    def setup(self, *, hydra_context: Any, task_function: Any, config: DictConfig) -> None:
        self.composed = config
        self.typed = list(config.hydra.overrides.task)
        self.preflight = Preflight(hydra_context.config_loader, config)
        self.sweep = Sweep(Path(config.hydra.sweep.dir))
        self.table = TrialTable(self.sweep)
        self.ending = Ending()
        self.strict = True
        self._fresh = bool(config.fresh)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """What stands around all batches of a sweep: its record, and what is shown of it."""
        with self.sweep.recording(), self.table.shown():
            yield

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Runs a batch of trials. A trial without a metric returns the worst there is: it counts, and ends nothing.

        Raises:
            UsageError: with all problems of the batch, where the launcher is strict.
        """
        batch = [list(overrides) for overrides in job_overrides]
        if self._fresh:
            self.check(batch)  # nothing is moved for a sweep that can't begin
            self.sweep.move_aside()
            self._fresh = False
        planned = self._plan(batch)
        problems = [(each.name, each.problem) for each in planned if each.problem]
        if problems and self.strict:
            raise UsageError(listed(problems, len(planned)))
        due = {start.name: start for each in planned if (start := self._record(each))}
        self.sweep.save()
        self.table.left_out([each.name for each in planned if each.name not in due])
        if due:
            self.run(list(due.values()))
        worst = -math.inf if self.composed.task.mode == "max" else math.inf
        return [_returned(self.sweep.trials[each.name], worst) for each in planned]

    @abstractmethod
    def run(self, starts: list[Start]) -> None:
        """Runs trials and records in `sweep` what becomes of each.

        Raises:
            SystemExit: it was stopped; all trials have ended.
        """

    def check(self, points: Sequence[Sequence[str]]) -> None:
        """Raises UsageError with every problem of configs, which need not become trials."""
        planned = [self._composed(list(overrides)) for overrides in points]
        if problems := [(each.name, each.problem) for each in planned if each.problem]:
            raise UsageError(listed(problems, len(points)))

    def _composed(self, overrides: list[str]) -> Planned:
        varied = varied_overrides(overrides, self.typed)
        each = Planned(trial_name(varied), overrides, varied)
        try:
            check_varied(varied)
            each.config, _ = self._checked(each)
        except UsageError as error:
            each.problem = str(error)
        return each

    def _checked(self, each: Planned) -> tuple[Config, Hashes]:
        return self.preflight.check(self._trial_overrides(each.overrides), self.sweep.folder / each.name)

    def _plan(self, batch: list[list[str]]) -> list[Planned]:
        """Composed and checked, also against what an earlier sweep has left in the folders."""
        planned = [self._composed(overrides) for overrides in batch]
        for each in planned:
            if each.config is None:
                continue
            others = {other.name for other in planned if other is not each}
            each.name = self.sweep.same_trial(each.name, asdict(each.config), others)
            folder = self.sweep.folder / each.name
            try:
                each.finished = RunFolder(folder).has_finished(*self._checked(each))
            except UsageError as error:
                each.problem = str(error).replace(str(folder), "its folder", 1)
        return planned

    def _record(self, each: Planned) -> Start | None:
        """Takes a trial into the record; None where there is nothing to start."""
        trial, folder = self.sweep.ask(each.name, each.varied), self.sweep.folder / each.name
        if each.problem or each.config is None:
            trial.state, trial.why = "failed", each.problem
            return None
        if each.finished:
            trial.state, trial.why, trial.value = finished(folder, each.config.task.monitor)
            return None
        if trial.state == "failed" and not each.config.sweep.retry_failed:
            return None
        trial.state, trial.why, trial.value, trial.exit = "pending", None, None, None
        return Start(each.name, trial, folder, each.config, self._command(each, folder))

    def _trial_overrides(self, overrides: list[str]) -> list[str]:
        """What a trial is composed from: its own, and what it must know of the sweep."""
        own = [each for each in overrides if not each.startswith(("name=", "fresh="))]
        progress = OmegaConf.select(self.composed, "callbacks.progress.line_seconds")
        often = [] if progress is None else [f"callbacks.progress.line_seconds={LINE_SECONDS}"]
        return [*own, *often, f"name={quoted(str(self.composed.name))}"]

    def _command(self, each: Planned, folder: Path) -> list[str]:
        """What runs a trial, as one could type it."""
        hydra = self.composed.hydra
        sources = [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]
        flags = [word for path in sources for word in ("--config-dir", path)]
        if hydra.job.config_name != "train":
            flags += ["--config-name", hydra.job.config_name]
        run_dir = f"hydra.run.dir={quoted(str(folder))}"
        return [sys.executable, os.path.abspath(sys.argv[0]), *flags, *self._trial_overrides(each.overrides), run_dir]


def _returned(trial: Trial, worst: float) -> JobReturn:
    value = worst if trial.value is None else trial.value
    return JobReturn(overrides=trial.overrides, status=JobStatus.COMPLETED, _return_value=value)


def quoted(text: str) -> str:
    """A text as Hydra's grammar takes it whole."""
    plain = PLAIN.fullmatch(text) and text.lower() not in WORDS
    return text if plain else json.dumps(text, ensure_ascii=False)
