"""A job of SLURM that is to be queued anew. Imports nothing heavy."""

import os
import signal
import subprocess

from domaintune.runs.ranks import is_first_process


def requeue_after(number: int) -> None:
    """Queues a job of SLURM anew, once for all its processes, where that is what the signal asks for."""
    if number == getattr(signal, "SIGUSR1", None) and is_first_process() and (job := this_job()):
        subprocess.run(["scontrol", "requeue", job], check=False)


def this_job() -> str | None:
    """The job of SLURM that this process belongs to: of an array by its place, since the last job bears its number."""
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID")
