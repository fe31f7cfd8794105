"""What happens to a run from outside: signals, a second start, damaged checkpoints, full disks, bad numbers."""

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT, assert_same_end, folder_of, result_of, wait_for, weights_of
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoModelForCausalLM

ENDLESS = ("trainer.max_steps=100000", "scheduler=constant", "trainer.val_check_interval=1000")


@pytest.fixture(scope="session")
def unbroken(command, quick) -> Path:
    done = command("train.py", "name=unbroken", *quick)
    assert done.returncode == 0, done.stderr
    return folder_of(command, "unbroken")


@pytest.fixture
def stopped(command, quick, unbroken, tmp_path):
    """A copy of a run that was killed in its last step, with last.ckpt of step 12 and previous.ckpt of step 8."""
    folder = folder_of(command, tmp_path.name)
    shutil.copytree(unbroken, folder)
    result = result_of(folder)
    (folder / "result.json").write_text(json.dumps({**result, "status": "running"}))
    return folder, ("train.py", f"name={tmp_path.name}", *quick)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 138), (signal.SIGHUP, 129)]
)
def test_a_signal_saves_and_the_run_goes_on_exactly(
    command, fresh_command, start, quick, unbroken, slowly, number, code
):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also where the tests run under nohup
    name = f"stopped_by_{number.name}"
    folder = folder_of(command, name)
    process = start(f"name={name}", *quick, *slowly.arguments, **slowly.environment)
    wait_for(folder / "checkpoints" / "last.ckpt", process)
    time.sleep(0.5)
    process.send_signal(number)
    if number == signal.SIGHUP:  # as a shell sends it, and then its terminal
        process.send_signal(number)
    out, _ = process.communicate(timeout=280)
    assert process.returncode == code
    assert f"{number.name}: saving after this step" in out
    assert "interrupted. The same command" in out
    assert "resumes from " in out
    assert result_of(folder)["status"] == "interrupted"
    assert 4 < torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] < 12
    # A fresh interpreter hashes texts otherwise than the one that was stopped.
    go_on = fresh_command if number == signal.SIGTERM else command
    again = go_on("train.py", f"name={name}", *quick, *slowly.arguments, **slowly.path)
    assert again.returncode == 0, again.stderr
    assert "going on from" in again.stdout
    assert_same_end(folder, unbroken)


def test_a_second_signal_stops_at_once(command, start, quick, tmp_path):
    (tmp_path / "forever.py").write_text(
        "import time, lightning\n"
        "class Forever(lightning.Callback):\n"
        "    def on_train_batch_start(self, trainer, *_):\n"
        "        while trainer.global_step == 4: time.sleep(0.1)\n"
    )
    process = start("name=twice", *quick, "+callbacks.forever={_target_: forever.Forever}", PYTHONPATH=str(tmp_path))
    wait_for(folder_of(command, "twice") / "checkpoints" / "last.ckpt", process)
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert result_of(folder_of(command, "twice"))["status"] == "interrupted"
    assert torch.load(folder_of(command, "twice") / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 4


def test_slurm_is_asked_to_queue_the_job_anew(command, start, quick, tmp_path):
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n')
    scontrol.chmod(0o755)
    slurm = {"SLURM_JOB_ID": "77", "SLURM_NTASKS": "1", "SLURM_JOB_NAME": "tune", "SLURM_PROCID": "0"}
    slurm |= {"SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NODELIST": "here"}
    process = start("name=queued", *quick, *ENDLESS, PATH=f"{tmp_path}:{os.environ['PATH']}", **slurm)
    wait_for(folder_of(command, "queued") / "checkpoints" / "last.ckpt", process)
    process.send_signal(signal.SIGUSR1)
    _, errors = process.communicate(timeout=280)
    assert process.returncode == 138, errors
    assert (tmp_path / "asked").read_text() == "requeue 77\n"


def test_a_second_process_is_kept_out_and_a_killed_one_keeps_nobody_out(command, start, quick):
    process = start("name=taken", *quick, *ENDLESS, python=sys.executable)
    folder = folder_of(command, "taken")
    try:
        wait_for(folder / "checkpoints" / "last.ckpt", process)
        for more in ((), ("fresh=true",)):
            refused = command("train.py", "name=taken", *quick, *ENDLESS, *more)
            assert refused.returncode == 2
            assert f"is in use by process {process.pid} on {socket.gethostname()}" in refused.stderr
    finally:
        process.kill()
        process.communicate()
    assert (folder / ".lock").exists()
    rest = [argument for argument in ENDLESS if not argument.startswith("trainer.max_steps")]
    steps = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    again = command("train.py", "name=taken", *quick, *rest, f"trainer.max_steps={steps + 5}")
    assert again.returncode == 2
    assert "trainer.max_steps: 100000 ->" in again.stderr, "shorter is another config"
    assert not (folder / ".lock").exists()


def test_a_lock_of_another_machine_is_told(stopped, command):
    folder, arguments = stopped
    (folder / ".lock").write_text(json.dumps({"host": "elsewhere", "pid": 1, "job": None}))
    refused = command(*arguments)
    assert refused.returncode == 2
    assert "in use by process 1 on elsewhere, another machine" in refused.stderr


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(stopped, command, unbroken, damage):
    folder, arguments = stopped
    last = folder / "checkpoints" / "last.ckpt"
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "missing":
        last.unlink()
    else:
        last.write_bytes(content[: len(content) // 2] if damage == "truncated" else content)
    done = command(*arguments)
    assert done.returncode == 0, done.stderr
    assert f"last.ckpt is {'missing' if damage == 'missing' else 'damaged'}" in done.stdout
    assert "previous.ckpt" in done.stdout
    assert_same_end(folder, unbroken)


def test_without_a_whole_checkpoint_it_ends_and_says_so(stopped, command):
    folder, arguments = stopped
    for name in ("last", "previous"):
        (folder / "checkpoints" / f"{name}.ckpt").write_bytes(b"nothing")
    done = command(*arguments)
    assert done.returncode == 1
    assert "has no whole checkpoint to go on from; fresh=true starts over" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_full_disk_leaves_the_old_checkpoint_whole_and_is_told(command, quick, unbroken):
    """A limit on the size of files is met where a disk is full: in the middle of writing."""
    name, size = "full", (unbroken / "checkpoints" / "last.ckpt").stat().st_size
    first = command("train.py", f"name={name}", *quick, "trainer.max_steps=4", "scheduler=constant")
    assert first.returncode == 0, first.stderr
    folder = folder_of(command, name)
    before = (folder / "checkpoints" / "last.ckpt").read_bytes()
    limited = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), f"name={name}", *quick, "scheduler=constant"],
        cwd=command.home,
        env={**os.environ, "DOMAINTUNE_CACHE": str(command.home / "cache")},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2)),
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert limited.returncode == 1, limited.stderr
    assert "can't be written" in limited.stderr
    assert "Traceback" not in limited.stderr
    assert result_of(folder)["status"] == "failed"
    assert (folder / "checkpoints" / "last.ckpt").read_bytes() == before
    assert not list(folder.rglob("*.part"))
    again = command("train.py", f"name={name}", *quick, "scheduler=constant")
    assert again.returncode == 0, again.stderr
    assert result_of(folder)["steps"] == 12


def test_longer_is_an_extension_and_ends_like_one_run(command, quick):
    constant = [*quick, "scheduler=constant"]
    for steps in (8, 12):
        done = command("train.py", "name=extended", *constant, f"trainer.max_steps={steps}")
        assert done.returncode == 0, done.stderr
    assert "trained longer: trainer.max_steps 8 -> 12" in done.stdout
    command("train.py", "name=at_once", *constant)
    assert_same_end(folder_of(command, "extended"), folder_of(command, "at_once"))
    shorter = command("train.py", "name=extended", *constant, "trainer.max_steps=9")
    assert shorter.returncode == 2


def test_curves_of_a_stopped_run_have_each_step_once(stopped, command, unbroken):
    folder, arguments = stopped
    shutil.copy(folder / "checkpoints" / "previous.ckpt", folder / "checkpoints" / "last.ckpt")
    shutil.copy(folder / "checkpoints" / "previous.ckpt.sha256", folder / "checkpoints" / "last.ckpt.sha256")
    done = command(*arguments)
    assert done.returncode == 0, done.stderr
    for tag in ("train/loss", "lr", "val/loss"):
        found = [
            [(event.step, event.value) for event in EventAccumulator(str(path)).Reload().Scalars(tag)]
            for path in (unbroken, folder)
        ]
        assert found[0] == found[1]


@pytest.mark.parametrize("mode", ["stop", "skip", "limit"])
def test_a_loss_that_is_not_finite_is_told_with_its_documents(command, quick, tmp_path, mode):
    (tmp_path / "poison.py").write_text(
        "import lightning\n"
        "class Poison(lightning.Callback):\n"
        "    def on_train_batch_start(self, trainer, task, batch, index):\n"
        "        task.before = {n: p.clone() for n, p in task.named_parameters()}\n"
        "        self.bad = trainer.global_step in (3, 5)\n"
        "        self.hook = task.model.transformer.wte.register_forward_hook(\n"
        "            lambda m, i, out: out * float('nan') if self.bad else out)\n"
        "    def on_train_batch_end(self, trainer, task, *_):\n"
        "        self.hook.remove()\n"
        "        same = all((p == task.before[n]).all() for n, p in task.named_parameters())\n"
        "        assert bool(same) == self.bad\n"
    )
    settings = {"stop": [], "skip": ["run.on_nonfinite=skip"], "limit": ["run.on_nonfinite=skip", "run.max_skipped=1"]}
    done = command(
        "train.py",
        f"name=poisoned_{mode}",
        *quick,
        "+callbacks.poison={_target_: poison.Poison}",
        *settings[mode],
        PYTHONPATH=str(tmp_path),
    )
    assert "Traceback" not in done.stderr
    told = done.stdout if mode == "skip" else done.stderr
    assert f"step {6 if mode == 'limit' else 4}: not finite: loss nan, gradient norm nan, lr 0.0" in told
    assert "documents of the batch: " in told
    assert "topics.jsonl:" in told
    assert done.returncode == (0 if mode == "skip" else 1)
    result = result_of(folder_of(command, f"poisoned_{mode}"))
    assert result["status"] == ("finished" if mode == "skip" else "failed")
    if mode == "skip":
        assert "skipped (2 of at most 10)" in done.stdout
        assert all(weight.isfinite().all() for weight in weights_of(folder_of(command, "poisoned_skip")).values())


@pytest.mark.parametrize("place", ["a file", "/sys"])
def test_a_folder_that_cannot_be_written_is_told(command, quick, tmp_path, place):
    (tmp_path / "a file").touch()
    done = command("train.py", "name=nowhere", *quick, f"'paths.runs=\"{tmp_path / place}/runs\"'".strip("'"))
    assert done.returncode == 2
    assert "can't be made" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_end_like_one_and_go_on_exactly(command, start, quick, slowly, strategy):
    rest = [argument for argument in quick if argument != "trainer=cpu"]
    same = ["model.dropout=0", "trainer.precision=32"]
    two = [*rest, *same, f"trainer={strategy}", "trainer.accelerator=cpu", "trainer.devices=2", "data.batch_size=2"]
    one = command("train.py", f"name=one_for_{strategy}", *quick, *same, "data.batch_size=4")
    assert one.returncode == 0, one.stderr
    whole = command("train.py", f"name=whole_{strategy}", *two)
    assert whole.returncode == 0, whole.stderr
    first, second = (folder_of(command, name) for name in (f"one_for_{strategy}", f"whole_{strategy}"))
    a, b = (torch.cat([weight.flatten() for weight in weights_of(path).values()]) for path in (first, second))
    assert (a - b).norm() <= 1e-5 * a.norm()

    name = f"stopped_{strategy}"
    process = start(f"name={name}", *two, *slowly.arguments, **slowly.environment)
    wait_for(folder_of(command, name) / "checkpoints" / "last.ckpt", process)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=280)
    assert process.returncode == 143, errors
    assert result_of(folder_of(command, name))["status"] == "interrupted"
    again = command("train.py", f"name={name}", *two, *slowly.arguments, **slowly.path)
    assert again.returncode == 0, again.stderr
    assert_same_end(folder_of(command, name), second)
    if strategy == "ddp":
        torchrun = ("-m", "torch.distributed.run", "--nproc-per-node", "2", str(ROOT / "train.py"))
        by_torchrun = command(*torchrun, "name=by_torchrun", *two)
        assert by_torchrun.returncode == 0, by_torchrun.stderr
        assert_same_end(folder_of(command, "by_torchrun"), second)
    export = AutoModelForCausalLM.from_pretrained(second / "export")
    best = weights_of(second, "best")
    assert all(torch.equal(weight, best[f"model.{name}"]) for name, weight in export.state_dict().items())


@pytest.mark.slow
def test_killed_runs_end_bit_identical(command):
    """Of a Llama; the README's commands try a GPT-2."""
    done = command("scripts/certify.py", "resume", "--shape", "llama", "--kills", "3", "--seed", str(os.getpid()))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_gradients_and_validation_do_not_depend_on_how_batches_are_cut(command):
    """Of a Llama; the README's commands try a GPT-2."""
    for arguments in (("gradients", "--micro", "2", "16"), ("validation",)):
        done = command("scripts/certify.py", *arguments, "--shape", "llama")
        assert done.returncode == 0, done.stdout + done.stderr
