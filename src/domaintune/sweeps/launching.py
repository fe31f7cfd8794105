"""What every launcher does: the trials of a batch are checked, those that have finished left out, the others run."""

import logging
import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf

from domaintune.config.overrides import as_typed, quote
from domaintune.config.programs import train_again
from domaintune.config.schema import Config
from domaintune.config.tasks import direction
from domaintune.errors import UsageError
from domaintune.runs.folder import RunFolder
from domaintune.runs.queueing import requeue_after
from domaintune.runs.ranks import is_started_again
from domaintune.sweeps.ending import Ending
from domaintune.sweeps.preflight import Hashes, Preflight, check_varied, listed
from domaintune.sweeps.recording import SweepFolder
from domaintune.sweeps.table import TrialTable
from domaintune.sweeps.trials import ENDED, TrialRecord, finished, outcome, trial_name, varied_overrides

LINE_SECONDS = 5  # between two lines of a trial's progress, which the table reads


@dataclass
class Planned:
    """A trial, before anything of it is started or recorded."""

    name: str
    overrides: list[str]
    varied: list[str]
    config: Config | None = None
    hashes: Hashes = field(default_factory=dict)
    finished: bool = False
    problem: str | None = None
    is_another: bool = False  # its folder holds a run that it would not go on with


@dataclass
class Start:
    """A trial that is due."""

    name: str
    trial: TrialRecord
    folder: Path
    config: Config
    command: list[str]
    earlier: dict[str, Any]  # what an earlier process has left in result.json


class TrialLauncher(Launcher):
    """A launcher of Hydra that runs trials and records them; how they are started is a subclass's.

    Attributes:
        sweep: the record of the trials.
        ending: what ends the sweep early.
        direction: `min` or `max`, which values of the monitored metric are better.
        strict: whether one wrong config keeps all trials from starting; a search counts it as a bad trial. What would
            take another run's folder starts in neither.
    """

    def setup(self, *, hydra_context: Any, task_function: Any, config: DictConfig) -> None:
        # Hydra makes INFO the root's level, at which it, its sweepers and TensorBoard talk.
        logging.getLogger().setLevel(logging.WARNING)
        self.composed = config
        self.typed = list(config.hydra.overrides.task)
        self.preflight = Preflight(hydra_context.config_loader, config)
        self.sweep = SweepFolder(Path(config.hydra.sweep.dir))
        self.table = TrialTable(self.sweep)
        self.ending = Ending()
        self.strict = True
        self._fresh = bool(config.fresh) and not is_started_again()
        self._begun = False
        self.direction = config.task.mode or direction(str(config.task.monitor), config.task)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """What stands around all batches of a sweep: its record, and what is shown of it."""
        try:
            with self.sweep.recording(), self.table.shown():
                yield
        except SystemExit as stopped:
            requeue_after(int(stopped.code or 0) - 128)
            raise

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Runs a batch of trials. A trial without a metric returns the worst there is: it counts, and ends nothing.

        Raises:
            UsageError: with all problems of the batch, where the launcher is strict or a folder holds another run.
            SystemExit: it was stopped before all trials had ended.
        """
        planned = self._composed(job_overrides)
        if self._fresh:
            refuse(planned)
        self.begin()
        for each in planned:
            self._find(each, {other.name for other in planned if other is not each})
        if self.strict or any(each.is_another for each in planned):
            refuse(planned)
        metrics = {each.config.task.monitor for each in planned if each.config is not None}
        self.table.metric = metrics.pop() if len(metrics) == 1 else "metric"
        due = {start.name: start for each in planned if (start := self._record(each))}
        self.sweep.save()
        self._tell_left_out([each for each in planned if each.name not in due])
        if due:
            self.run(list(due.values()))
            self._stop_where_told()
        worst = -math.inf if self.direction == "max" else math.inf
        return [_returned(self.sweep.trials[each.name], worst) for each in planned]

    @abstractmethod
    def run(self, starts: list[Start]) -> None:
        """Runs trials and records in `sweep` what becomes of each.

        It returns when all of them have ended, or are stopped because `ending` told so.
        """

    def ready(self) -> None:
        """Raises UsageError or RunError where trials can't be started; called before anything is moved or recorded."""

    def begin(self) -> None:
        """What comes between the checks and the first change to the folder of the sweep; of a search once."""
        if not self._begun:
            self.ready()
        self._begun = True
        if self._fresh:
            self.sweep.move_aside()
            self._fresh = False

    def check(self, points: Sequence[Sequence[str]]) -> list[Config]:
        """The configs of points, which need not become trials. Raises UsageError with every problem that they have."""
        refuse(planned := self._composed(points))
        return [each.config for each in planned if each.config is not None]

    def ended(self, start: Start, status: int, printed: str) -> None:
        """Records the end of a trial's process.

        Args:
            printed: the end of its output.
        """
        start.trial.exit = status
        start.trial.state, start.trial.why, start.trial.value = outcome(
            start.folder, start.config.task.monitor, status, printed, start.earlier
        )

    def _stop_where_told(self) -> None:
        """Raises SystemExit where the sweep was stopped before all its trials had ended."""
        open_ = [name for name in self.sweep.asked if self.sweep.trials[name].state not in ENDED]
        if open_ and (number := self.ending.told()):
            raise SystemExit(128 + number)

    def _composed(self, batch: Sequence[Sequence[str]]) -> list[Planned]:
        """The configs of trials, each checked by itself."""
        if self.strict:
            self.table.say(f"checking {len(batch)} configs")
        planned = []
        for overrides in batch:
            varied = varied_overrides(overrides, self.typed)
            each = Planned(trial_name(varied), list(overrides), list(map(as_typed, varied)))
            try:
                check_varied(varied)
                self._check(each)
            except UsageError as error:
                each.problem = str(error)
            planned.append(each)
        return planned

    def _check(self, each: Planned) -> None:
        overrides = self._trial_overrides(each.overrides)
        each.config, each.hashes = self.preflight.check(overrides, self.sweep.folder / each.name)

    def _find(self, each: Planned, others: set[str]) -> None:
        """Looks at what an earlier sweep has left of a trial.

        Args:
            others: the names of the other trials of this command.
        """
        if each.config is None:
            return
        name = self.sweep.same_trial(each.name, asdict(each.config), others, each.hashes)
        if name != each.name:
            each.name = name
            self._check(each)  # the folder is part of the config
        folder = self.sweep.folder / each.name
        try:
            each.finished = RunFolder(folder).has_finished(each.config, each.hashes)
        except UsageError as error:
            each.is_another, each.problem = True, str(error).replace(str(folder), "its folder", 1)

    def _record(self, each: Planned) -> Start | None:
        """Takes a trial into the record; None where there is nothing to start."""
        trial, folder = self.sweep.ask(each.name, each.varied), self.sweep.folder / each.name
        if each.problem or each.config is None:
            trial.state, trial.why, trial.value, trial.exit = "failed", each.problem, None, None
            return None
        if each.finished:
            trial.state, trial.why, trial.value = finished(folder, each.config.task.monitor)
            return None
        if trial.state == "failed" and not each.config.sweep.retry_failed:
            return None
        trial.state, trial.why, trial.value, trial.exit = "pending", None, None, None
        earlier = RunFolder(folder).earlier() or {}
        return Start(each.name, trial, folder, each.config, self._command(each, folder), earlier)

    def _tell_left_out(self, planned: list[Planned]) -> None:
        """Says which trials are not started."""
        for each in planned:
            if self.sweep.trials[each.name].state == "failed":
                self.table.event(each.name)
        failed = [each for each in planned if self.sweep.trials[each.name].state == "failed" and not each.problem]
        if done := sum(self.sweep.trials[each.name].state == "finished" for each in planned):
            self.table.say(f"{done} finished already")
        if again := sum(not each.finished for each in failed):
            self.table.say(f"{again} failed before; sweep.retry_failed=true tries again")
        if lost := sum(each.finished for each in failed):
            self.table.say(f"{lost} finished before, with a metric that is not finite: another try would end alike")

    def _trial_overrides(self, overrides: list[str]) -> list[str]:
        """What a trial is composed from: its own, and what it must know of the sweep."""
        own = [as_typed(each) for each in overrides if not each.startswith(("name=", "fresh="))]
        progress = OmegaConf.select(self.composed, "callbacks.progress.line_seconds")
        often = [] if progress is None else [f"callbacks.progress.line_seconds={LINE_SECONDS}"]
        return [*own, *often, f"name={quote(str(self.composed.name))}"]

    def _command(self, each: Planned, folder: Path) -> list[str]:
        """What runs a trial, as one could type it."""
        hydra = self.composed.hydra
        sources = {source.path: None for source in hydra.runtime.config_sources if source.provider == "command-line"}
        flags = [word for path in sources for word in ("--config-dir", path)]
        if hydra.job.config_name != "train":
            flags += ["--config-name", hydra.job.config_name]
        run_dir = f"hydra.run.dir={quote(str(folder))}"
        return [*train_again(), *flags, *self._trial_overrides(each.overrides), run_dir]


def _returned(trial: TrialRecord, worst: float) -> JobReturn:
    value = worst if trial.value is None else trial.value
    return JobReturn(overrides=trial.overrides, status=JobStatus.COMPLETED, _return_value=value)


def refuse(planned: Sequence[Planned]) -> None:
    """Raises UsageError with all problems of a batch, where there are any."""
    if problems := [(each.name, each.problem) for each in planned if each.problem]:
        raise UsageError(listed(problems, len(planned)))
