"""launcher=slurm on a real SLURM of this one machine, which tests/slurm/start.sh starts (as root)."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
SLOWLY = """
import time, lightning
class Slowly(lightning.Callback):
    def on_train_batch_end(self, trainer, *_): time.sleep(1 if trainer.global_step > 5 else 0)
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(
        shutil.which("slurmctld") is None or os.getuid() != 0, reason="needs Debian's slurm-wlm and munge, and root"
    ),
]


@pytest.fixture(scope="module")
def cluster():
    os.environ["SLURM_CONF"] = "/tmp/slurm-of-tests/slurm.conf"
    subprocess.run(["sh", str(ROOT / "tests" / "slurm" / "start.sh")], check=True, timeout=120)
    yield
    subprocess.run(["sh", str(ROOT / "tests" / "slurm" / "start.sh"), "stop"], check=True, timeout=60)
    del os.environ["SLURM_CONF"]


@pytest.fixture
def quick(short: list[str], tmp_path: Path) -> list[str]:
    (tmp_path / "slowly.py").write_text(SLOWLY)
    return [
        *(*short, "trainer.max_steps=16", "trainer.val_check_interval=6"),
        *("checkpoint.every_steps=4", "deterministic=true", "~callbacks.samples"),
        "+callbacks.slowly={_target_: slowly.Slowly}",
    ]


@pytest.fixture
def start(command, tmp_path):
    def started(*arguments: str) -> subprocess.Popen[str]:
        changes = {"DOMAINTUNE_CACHE": str(command.home / "cache"), "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [sys.executable, str(ROOT / "train.py"), "-m", "launcher=slurm", *arguments],
            cwd=command.home,
            env={**os.environ, **changes},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return started


def wait_until(true, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while not true():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.2)


def job_of(log: Path) -> str:
    """The job in which a trial runs, which its own lock names, by its place in the array.

    The last job of an array bears the array's number, by which SLURM would take all of them.
    """
    number = json.loads((log.parent / ".lock").read_text())["job"]
    listed = subprocess.run(["squeue", "-h", "-r", "-o", "%A %i"], capture_output=True, text=True, check=True).stdout
    return dict(line.split() for line in listed.splitlines())[number]


def test_three_trials_of_which_two_are_preempted_end_like_plain_runs(command, cluster, quick, start, tmp_path):
    for seed in range(3):
        done = command(
            "train.py", f"name=plain_{seed}", *quick, f"seed={seed}", PYTHONPATH=str(tmp_path), OMP_NUM_THREADS="1"
        )
        assert done.returncode == 0, done.stderr
    sweep = command.home / "logs" / "sweeps" / "queued"
    process = start("name=queued", *quick, "seed=0,1,2", "launcher.job.cpus_per_task=1")
    for seed, preempt in ((1, ["scancel", "--signal=TERM"]), (2, ["scontrol", "requeue"])):
        trial = sweep / f"seed={seed}"
        wait_until((trial / "checkpoints" / "last.ckpt").exists, process)
        time.sleep(1)
        subprocess.run([*preempt, job_of(trial / "output.log")], check=True)
        wait_until(lambda log=trial / "output.log": "saving after this step" in log.read_text(), process)
    out, _ = process.communicate(timeout=500)
    assert process.returncode == 0, out
    record = json.loads((sweep / "sweep.json").read_text())
    assert record["status"] == "finished"
    assert {name: trial["state"] for name, trial in record["trials"].items()} == {
        f"seed={seed}": "finished" for seed in range(3)
    }
    for seed in range(3):
        assert ("going on from" in (sweep / f"seed={seed}" / "output.log").read_text()) == (seed > 0)
        plain, queued = command.home / "logs" / "runs" / f"plain_{seed}", sweep / f"seed={seed}"
        first, second = (
            torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
            for folder in (plain, queued)
        )
        assert all(torch.equal(first[name], second[name]) for name in first)
        metrics = [json.loads((folder / "result.json").read_text())["metrics"] for folder in (plain, queued)]
        assert metrics[0] == metrics[1]


def test_a_stopped_sweep_cancels_its_jobs_which_save_and_do_not_come_back(command, cluster, quick, start):
    sweep = command.home / "logs" / "sweeps" / "cancelled"
    process = start("name=cancelled", *quick, "seed=0,1,2", "launcher.n_jobs=1")
    trial = sweep / "seed=0"
    wait_until((trial / "checkpoints" / "last.ckpt").exists, process)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 143, out
    record = json.loads((sweep / "sweep.json").read_text())
    assert record["status"] == "interrupted"
    assert [each["state"] for each in record["trials"].values()] == ["interrupted", "pending", "pending"]
    assert "saving after this step" in (trial / "output.log").read_text()
    assert json.loads((trial / "result.json").read_text())["status"] == "interrupted"
    names = subprocess.run(["squeue", "-h", "-o", "%j"], capture_output=True, text=True, check=True).stdout
    assert "cancelled-" not in names
