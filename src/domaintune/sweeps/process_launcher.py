"""launcher=process: a process for each trial, `launcher.n_jobs` at a time."""

import os
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import Any

from domaintune.config.comparison import limit
from domaintune.sweeps.launching import Start, TrialLauncher
from domaintune.sweeps.processes import TrialProcess

POLL_SECONDS = 0.05
# Whoever kills a whole sweep may begin with its trials: only one that the sweep outlives has failed by itself.
OUTLIVED_SECONDS = 1.0


@dataclass
class Running:
    """A trial's process, and which of the n_jobs places it has."""

    start: Start
    process: TrialProcess
    place: int
    began: float
    stopped: bool = False  # asked to save and end


class ProcessLauncher(TrialLauncher):
    """A crash, a kill or a poisoned device takes one trial only.

    The first SIGINT, SIGTERM, SIGHUP or SIGUSR1, or the end of sweep.max_time, asks the trials to save and end, and
    starts no more. A second signal kills them.
    """

    def setup(self, **context: Any) -> None:
        super().setup(**context)
        self._running: list[Running] = []

    def run(self, starts: list[Start]) -> None:
        settings = starts[0].config
        self.ending.seconds = limit(settings.sweep.max_time)
        self._n_jobs = settings.launcher.n_jobs
        waiting = list(reversed(starts))
        with self.ending.catching():
            try:
                while self._running or (waiting and not self.ending.told()):
                    while waiting and len(self._running) < self._n_jobs and not self.ending.told():
                        self._begin(waiting.pop())
                    self._stop_trials()
                    for each in list(self._running):
                        self._look_after(each)
                    self.table.refresh()
                    time.sleep(POLL_SECONDS)
            finally:
                for each in self._running:
                    each.process.kill()

    def _begin(self, start: Start) -> None:
        place = min(set(range(self._n_jobs)) - {each.place for each in self._running})
        start.folder.mkdir(parents=True, exist_ok=True)
        start.trial.state = "running"
        self.sweep.save()
        environment = {"PYTHONFAULTHANDLER": "1", **shared_out(self._n_jobs, place)}
        process = TrialProcess(start.command, start.folder / "output.log", environment)
        self._running.append(Running(start, process, place, time.monotonic()))
        self.table.event(start.name)

    def _stop_trials(self) -> None:
        if not self.ending.told():
            return
        first = [each for each in self._running if not each.stopped]
        for each in first:
            each.process.stop()
            each.stopped = True
        if first:
            self.table.say(f"{self.ending.words()}: {len(first)} running trials save and end; a second signal kills")
        if self.ending.at_once:
            for each in self._running:
                each.process.kill()

    def _look_after(self, running: Running) -> None:
        """Records the end of a process that has ended."""
        trial, start = running.start.trial, running.start
        if (status := running.process.poll()) is None:
            return
        if status == -signal.SIGKILL and not running.stopped:
            time.sleep(OUTLIVED_SECONDS)
        self._running.remove(running)
        trial.seconds += time.monotonic() - running.began
        self.ended(start, status, running.process.printed())
        if running.stopped and trial.state != "finished":
            trial.state, trial.why = "interrupted", None
        self.sweep.save()
        self.table.event(start.name)


def shared_out(n_jobs: int, place: int) -> dict[str, str]:
    """The environment that gives one of several trials at a time its share of threads and GPUs."""
    if n_jobs == 1:
        return {}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    environment = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, cores // n_jobs)))}
    if devices := _devices():
        # Each device to one trial as far as they go; more trials than devices share them.
        mine = devices[place::n_jobs] or [devices[place % len(devices)]]
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(mine)
    return environment


def _devices() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [device.strip() for device in visible.split(",") if device.strip()]
    try:
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(number) for number, line in enumerate(listing.splitlines()) if line.startswith("GPU ")]
