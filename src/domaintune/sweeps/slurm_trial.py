"""What runs in a job of SLURM: a trial's process, and the signals that it is to have."""

import os
import signal
import subprocess
from pathlib import Path
from types import FrameType

from domaintune.files.writing import write_whole
from domaintune.runs.queueing import requeue_after, this_job
from domaintune.sweeps.processes import TrialProcess

EXIT_STATUS = ".exit_status"  # of a trial whose job is done, in its folder: submitit keeps results as pickles


def run_trial(command: list[str], output: str) -> None:
    """Runs a trial, and leaves its exit status in its folder. Where a signal has ended it, this process ends without
    leaving one: the job isn't done.

    submitit has put its own handlers of signals in place: it ignores SIGTERM, and at SIGUSR2 queues the job anew
    without the trial having saved. Those of the trial win: they save first (callbacks/stopping.py), and at SIGUSR1
    queue the job anew. So this process hands each signal on as the one that means the right thing.
    """
    process = TrialProcess(command, Path(output), {})
    told = []

    def hand_on(number: int, _frame: FrameType | None) -> None:
        told.append(number)
        # Preempted, or its time is nearly over: the job still runs. One that a person has cancelled must not come back.
        ended = number == signal.SIGTERM and not _job_runs()
        process.stop(signal.SIGTERM if ended else signal.SIGUSR1)

    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, hand_on)
    status = process.wait()
    if status == -signal.SIGUSR1:
        requeue_after(signal.SIGUSR1)  # it came before the trial could catch it
    if told and status != 0:
        os._exit(abs(status))
    write_whole(Path(output).with_name(EXIT_STATUS), str(status))


def _job_runs() -> bool:
    listed = subprocess.run(
        ["squeue", "-h", "-j", str(this_job()), "-o", "%T"], capture_output=True, text=True, check=False
    )
    return "RUNNING" in listed.stdout
