"""What becomes of SLURM's jobs, told by stand-ins for submitit and SLURM; tests/e2e/test_slurm.py has the real ones."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from domaintune.config.schema import Config, TaskConfig
from domaintune.errors import RunError
from domaintune.sweeps import slurm_launcher
from domaintune.sweeps.ending import Ending
from domaintune.sweeps.launching import Start
from domaintune.sweeps.recording import SweepFolder
from domaintune.sweeps.slurm_launcher import SlurmLauncher, Submitted
from domaintune.sweeps.slurm_trial import EXIT_STATUS
from domaintune.sweeps.table import TrialTable


class Job:
    """A job that has ended: with an exit status of its trial, with an error around it, or with neither."""

    job_id = "12_0"

    def __init__(self, folder: Path, told: int | str | None) -> None:
        self.paths = SimpleNamespace(result_pickle=folder / "result.pkl", stderr=folder / "log.err")
        if isinstance(told, int):
            (folder / "trial" / EXIT_STATUS).write_text(str(told))
        if isinstance(told, str):
            self.paths.stderr.write_text(told)
        if told is not None:
            self.paths.result_pickle.write_bytes(b"nothing reads it")


@pytest.fixture
def submitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A launcher, and how to give it a trial whose job ended in some way."""
    monkeypatch.setattr(slurm_launcher, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(slurm_launcher, "GONE_SECONDS", 0.0)
    launcher = SlurmLauncher.__new__(SlurmLauncher)
    launcher.sweep, launcher.ending = SweepFolder(tmp_path), Ending()
    launcher.table = TrialTable(launcher.sweep)

    def submit(told: int | str | None, **result: object) -> Submitted:
        folder = tmp_path / "trial"
        folder.mkdir()
        (folder / "output.log").write_text("printed\n")
        if result:
            (folder / "result.json").write_text(json.dumps(result))
        config = Config(task=TaskConfig(name="causal_lm", monitor="val/loss", mode="min"))
        start = Start("trial", launcher.sweep.ask("trial", []), folder, config, [], {})
        monkeypatch.setattr(launcher, "_submit", lambda _: [Submitted(start, Job(tmp_path, told), 0)])
        return Submitted(start, None, 0)

    return SimpleNamespace(launcher=launcher, submit=submit)


FINISHED = {"status": "finished", "metrics": {"after": {"val/loss": 2.5}}}


@pytest.mark.parametrize(
    ("told", "result", "expected"),
    [
        (0, FINISHED, ("finished", None, 0)),
        (None, FINISHED, ("finished", None, None)),
        (None, {"status": "running"}, ("failed", "its job 12_0 ended without a result", None)),
        (
            "submitit ERROR - Submitted job triggered an exception\nTraceback ...\nOSError: [Errno 28] full\n",
            {},
            ("failed", "OSError: [Errno 28] full", None),
        ),
    ],
)
def test_what_became_of_a_job(submitted, monkeypatch, told, result, expected) -> None:
    monkeypatch.setattr(slurm_launcher, "slurm", lambda *_: "")
    each = submitted.submit(told, **result)
    submitted.launcher.run([each.start])
    trial = each.start.trial
    assert (trial.state, trial.why, trial.exit) == expected


def test_where_slurm_does_not_answer_it_is_asked_again(submitted, monkeypatch) -> None:
    answers = iter([RunError("squeue: timed out"), "12_0 RUNNING", RunError("squeue: timed out"), ""])

    def slurm(*_: str) -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(slurm_launcher, "slurm", slurm)
    each = submitted.submit(None, **FINISHED)
    submitted.launcher.run([each.start])
    assert each.start.trial.state == "finished"
    assert next(answers, None) is None


def test_where_slurm_never_answers_that_is_told(submitted, monkeypatch) -> None:
    def slurm(*_: str) -> str:
        raise RunError("squeue: gone")

    monkeypatch.setattr(slurm_launcher, "slurm", slurm)
    monkeypatch.setattr(slurm_launcher, "SILENT_SECONDS", 0.05)
    each = submitted.submit(None, status="running")
    with pytest.raises(RunError, match="gone"):
        submitted.launcher.run([each.start])


def test_a_signal_before_the_trial_can_catch_it_queues_the_job_anew(tmp_path: Path) -> None:
    (tmp_path / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    (tmp_path / "scontrol").chmod(0o755)
    program = (
        "import sys; from domaintune.sweeps.slurm_trial import run_trial\n"
        "run_trial(['/bin/sh', '-c', 'echo began; exec sleep 100'], sys.argv[1])"
    )
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "log")], env=environment)
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "log").exists() or "began" not in (tmp_path / "log").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGUSR2)
        assert process.wait(timeout=120) == signal.SIGUSR1
    finally:
        process.kill()
    assert (tmp_path / "asked").read_text() == "requeue 7\n"
