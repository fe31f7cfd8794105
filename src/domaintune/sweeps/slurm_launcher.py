"""launcher=slurm: a job for each trial, through submitit; `launcher.n_jobs` at a time."""

import getpass
import hashlib
import subprocess
import time
from dataclasses import dataclass
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from domaintune.config.comparison import limit
from domaintune.errors import RunError, UsageError
from domaintune.files.writing import end_of
from domaintune.runs.folder import RunFolder
from domaintune.sweeps.launching import Start, TrialLauncher
from domaintune.sweeps.slurm_trial import EXIT_STATUS, run_trial
from domaintune.sweeps.trials import finished, last_error

POLL_SECONDS = 2.0
SILENT_SECONDS = 600.0  # how long SLURM may not answer
GONE_SECONDS = 30.0  # how long the result of a job may need to be seen on this machine


@dataclass
class Submitted:
    """A trial's job, and how much of its output is older."""

    start: Start
    job: Any  # submitit's
    output_from: int
    began: float | None = None
    gone: float | None = None


class SlurmLauncher(TrialLauncher):
    """The jobs queue themselves anew (slurm_trial.py). Where this process is killed they go on; where it is stopped, by
    a signal or by sweep.max_time, they are cancelled, and save.
    """

    def run(self, starts: list[Start]) -> None:
        settings = starts[0].config
        self.ending.seconds = limit(settings.sweep.max_time)
        open_jobs = self._submit(starts)
        cancelled = False
        answered = time.monotonic()
        with self.ending.catching():
            while open_jobs:
                states = None
                try:
                    if self.ending.told() and not cancelled:
                        slurm("scancel", *(each.job.job_id for each in open_jobs))
                        self.table.say(f"{self.ending.words()}: the jobs are cancelled; trials that run save and end")
                        cancelled = True
                    states, answered = self._states(), time.monotonic()
                except RunError:
                    if time.monotonic() - answered > SILENT_SECONDS:
                        raise
                open_jobs = [each for each in open_jobs if not self._look_after(each, states, cancelled)]
                self.table.refresh()
                time.sleep(POLL_SECONDS)

    def ready(self) -> None:
        if left := self._states():
            raise UsageError(f"jobs of this sweep are still queued or running: {', '.join(left)} (scancel ends them)")
        try:
            import submitit  # noqa: F401
        except ModuleNotFoundError as error:
            raise UsageError(f"launcher=slurm needs {error.name}: pip install -e '.[slurm]'") from error
        _parameters(self.composed.launcher.job)

    @property
    def _job_name(self) -> str:
        """Of this sweep's jobs, and no other's."""
        digest = hashlib.sha256(str(self.sweep.folder.resolve()).encode()).hexdigest()[:8]
        return f"{self.sweep.folder.name}-{digest}"

    def _submit(self, starts: list[Start]) -> list[Submitted]:
        import submitit

        launcher = starts[0].config.launcher
        executor = submitit.AutoExecutor(folder=self.sweep.folder.resolve() / ".submitit" / "%A", cluster="slurm")
        executor.update_parameters(
            **_parameters(launcher.job), slurm_array_parallelism=launcher.n_jobs, name=self._job_name
        )
        outputs = [start.folder.resolve() / "output.log" for start in starts]
        for output in outputs:
            output.parent.mkdir(parents=True, exist_ok=True)
            output.touch()
            output.with_name(EXIT_STATUS).unlink(missing_ok=True)
        sizes = [output.stat().st_size for output in outputs]
        jobs = executor.map_array(run_trial, [start.command for start in starts], [str(output) for output in outputs])
        self.table.say(f"submitted jobs {jobs[0].job_id} to {jobs[-1].job_id}")
        return [Submitted(*each) for each in zip(starts, jobs, sizes, strict=True)]

    def _states(self) -> dict[str, str]:
        """{id: state} of this sweep's jobs that SLURM has."""
        user = getpass.getuser()
        listed = slurm("squeue", "-h", "-r", "-u", user, "-n", self._job_name, "-o", "%i %T")
        return dict(line.split() for line in listed.splitlines())

    def _look_after(self, each: Submitted, states: dict[str, str] | None, cancelled: bool) -> bool:
        """Records what a job has become; whether it has ended.

        Args:
            states: None where SLURM did not answer.
        """
        if (each.start.folder / EXIT_STATUS).exists() or each.job.paths.result_pickle.exists():
            self._end(each, cancelled)
            return True
        if states is None:
            return False
        trial, state = each.start.trial, states.get(each.job.job_id)
        if state is not None:
            each.gone = None
            if state in ("RUNNING", "COMPLETING") and each.began is None:
                each.began = time.monotonic()
            shown = "pending" if state == "PENDING" else "running"
            if trial.state != shown:
                trial.state = shown
                self.sweep.save()
                self.table.event(each.start.name)
            return False
        each.gone = each.gone or time.monotonic()
        if not cancelled and time.monotonic() - each.gone < GONE_SECONDS:
            return False
        self._end(each, cancelled)
        return True

    def _end(self, each: Submitted, cancelled: bool) -> None:
        trial, start = each.start.trial, each.start
        trial.seconds += 0.0 if each.began is None else time.monotonic() - each.began
        paths, status = each.job.paths, start.folder / EXIT_STATUS
        if status.exists():
            self.ended(start, int(status.read_text()), end_of(start.folder / "output.log", each.output_from))
        elif paths.result_pickle.exists():  # nothing unpickles it; what ran around the trial has failed
            said = end_of(paths.stderr) if paths.stderr.exists() else ""
            trial.state, trial.why = "failed", last_error(said) or f"its job {each.job.job_id} ended without a result"
        else:
            left = RunFolder(start.folder).earlier() or {}
            trial.state = "interrupted" if left.get("status") == "interrupted" else "failed"
            trial.why = f"its job {each.job.job_id} ended without a result"
            if left.get("status") == "finished" and left != start.earlier:
                trial.state, trial.why, trial.value = finished(start.folder, start.config.task.monitor)
        if cancelled and trial.state != "finished":
            trial.state, trial.why = "pending" if each.began is None else "interrupted", None
        self.sweep.save()
        self.table.event(start.name)


def _parameters(job: dict[str, Any]) -> dict[str, Any]:
    """launcher.job as submitit's AutoExecutor takes it. Raises UsageError where a key or value is none of it."""
    from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf, SlurmQueueConf

    try:
        merged = OmegaConf.merge(OmegaConf.structured(SlurmQueueConf), job)
    except OmegaConfBaseException as error:
        raise UsageError(f"launcher.job: {str(error).splitlines()[0]}") from error
    ours = ("_target_", "submitit_folder", "name", "array_parallelism", "max_num_timeout")
    shared = {str(key) for key in OmegaConf.structured(BaseQueueConf)}
    values = {str(key): value for key, value in dict(OmegaConf.to_container(merged)).items() if value is not None}  # type: ignore[arg-type]
    return {key if key in shared else f"slurm_{key}": value for key, value in values.items() if key not in ours}


def slurm(*command: str) -> str:
    """What a command of SLURM prints. Raises RunError where it fails, and UsageError where there is none."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    except FileNotFoundError as error:
        raise UsageError(f"launcher=slurm: there is no {command[0]} on this machine") from error
    except subprocess.SubprocessError as error:
        raise RunError(f"{' '.join(command)}: {getattr(error, 'stderr', None) or error}") from error
