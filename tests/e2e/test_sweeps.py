"""Whole sweeps: what befalls their trials, what is killed, and what the same command then does."""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import assert_same_end

ROOT = Path(__file__).parents[2]

# What befalls a trial in its fifth step, as long as CAUSES=on.
FATES = """
import os, resource, signal, time
import lightning, torch

class Fate(lightning.Callback):
    def __init__(self, what="nothing"):
        self.what = what

    def on_train_batch_start(self, trainer, task, batch, index):
        if trainer.global_step != 5 or os.environ.get("CAUSES") != "on":
            return
        if self.what == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.what == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.what == "memory":
            used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + 2**26, used + 2**26))
            torch.zeros(2**28)
        if self.what == "diverges":
            with torch.no_grad():
                next(task.parameters()).fill_(float("nan"))
        if self.what == "slow":
            time.sleep(3600)
"""


@pytest.fixture
def fates(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "fates.py").write_text(FATES)
    return {"PYTHONPATH": str(tmp_path), "CAUSES": "on"}


@pytest.fixture(scope="session")
def quick(quick: list[str]) -> list[str]:
    """The learning rate is left to sweeps."""
    return [argument for argument in quick if not argument.startswith("optim.lr=")]


@pytest.fixture(scope="session")
def start(start):
    """Starts a sweep and leaves it running; in a fresh interpreter, so that commands tell its processes."""
    return lambda *arguments, **environment: start("-m", *arguments, python=sys.executable, **environment)


def folder_of(command: Any, name: str) -> Path:
    return command.home / "logs" / "sweeps" / name


def record_of(command: Any, name: str) -> dict[str, Any]:
    return json.loads((folder_of(command, name) / "sweep.json").read_text())


def trials_of(command: Any, name: str) -> dict[str, dict[str, Any]]:
    return record_of(command, name)["trials"]


def untouched(folder: Path) -> dict[str, str]:
    """What shows whether a finished trial was run again: {trial: its results}."""
    results = {file.parent.name: file.read_text() for file in folder.glob("*/result.json")}
    return {name: text for name, text in results.items() if json.loads(text)["status"] == "finished"}


def processes_in(folder: Path) -> list[int]:
    """The processes whose command names a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f"{folder.parent.name}/{folder.name}/" in (entry / "cmdline").read_text():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def wait_until(true, process: subprocess.Popen[str] | None = None, seconds: float = 200) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)


def wait_for_the_end_of_all(folder: Path) -> None:
    wait_until(lambda: not processes_in(folder), seconds=10)


def test_a_finished_trial_is_not_started_again_and_a_wider_grid_adds_to_it(command, quick):
    first = command("train.py", "-m", "name=wider", *quick, "optim.lr=1e-2,1e-3")
    assert first.returncode == 0, first.stderr
    before = untouched(folder_of(command, "wider"))
    assert set(before) == {"optim.lr=0.01", "optim.lr=0.001"}
    began = time.monotonic()
    same = command("train.py", "-m", *reversed(quick), "optim.lr=1e-3,1e-2", "name=wider")
    assert same.returncode == 0, same.stderr
    assert "2 finished already" in same.stdout
    assert time.monotonic() - began < 15
    wider = command("train.py", "-m", "name=wider", *quick, "optim.lr=1e-2,5e-3,1e-3", "seed=0")
    assert wider.returncode == 0, wider.stderr
    now = untouched(folder_of(command, "wider"))
    assert {name: now[name] for name in before} == before
    trials = trials_of(command, "wider")
    assert {name: trial["number"] for name, trial in trials.items()} == {
        "optim.lr=0.01": 0,
        "optim.lr=0.001": 1,
        "optim.lr=0.005": 2,
    }
    assert all(trial["state"] == "finished" and trial["exit"] == 0 for trial in trials.values())
    results = {name: json.loads(text)["metrics"]["after"]["val/loss"] for name, text in now.items()}
    assert {name: trial["value"] for name, trial in trials.items()} == results
    log = (folder_of(command, "wider") / "optim.lr=0.01" / "output.log").read_text()
    assert "12 optimizer steps" in log
    other = command("train.py", "-m", "name=wider", *quick, "trainer.max_steps=6", "optim.lr=1e-2,1e-3")
    assert other.returncode == 2
    assert "all 2 trials: its folder holds a run with another config" in other.stderr
    assert "trainer.max_steps: 12 -> 6" in other.stderr


def test_a_key_that_varies_only_now_leaves_what_was_trained_before(command, quick):
    first = command("train.py", "-m", "name=later", *quick, "optim.lr=1e-2")
    assert first.returncode == 0, first.stderr
    before = untouched(folder_of(command, "later"))
    assert set(before) == {"single"}
    second = command("train.py", "-m", "name=later", *quick, "optim.lr=1e-2", "seed=0,1")
    assert second.returncode == 0, second.stderr
    assert set(trials_of(command, "later")) == {"single", "seed=1"}
    assert trials_of(command, "later")["single"]["overrides"] == ["seed=0"]
    assert untouched(folder_of(command, "later"))["single"] == before["single"]


def test_every_wrong_config_is_told_before_the_first_trial(command, quick):
    done = command("train.py", "-m", "name=wrong", *quick, "optim.lr=1e-2", "data.block_size=16,32,65,48")
    assert done.returncode == 2
    assert "data.block_size=65: data.block_size=65 is more than the 64 positions of" in done.stderr
    assert "Traceback" not in done.stderr
    assert not folder_of(command, "wrong").exists()
    done = command(
        "train.py", "-m", "name=wrong", *quick, "optim.lr=1e-2,fast", "data.path=nowhere,elsewhere", "sweep.max_time=1h"
    )
    assert done.returncode == 2
    for problem in ("optim.lr=fast", "nowhere", "elsewhere", "sweep.max_time=1h: must be days:hours:minutes:seconds"):
        assert problem in done.stderr
    assert not folder_of(command, "wrong").exists()


@pytest.mark.parametrize("argument", ["name=a,b", "launcher.n_jobs=1,2", "sweep.n_trials=1,2"])
def test_what_belongs_to_the_sweep_cannot_vary(command, quick, argument):
    done = command("train.py", "-m", "name=shared", *quick, argument)
    assert done.returncode == 2
    assert "can't vary within a sweep" in done.stderr


@pytest.mark.slow
def test_four_of_eight_trials_fail_each_in_its_way_and_the_others_finish(command, quick, fates):
    arguments = [
        *("train.py", "-m", "name=fates", *quick, "optim.lr=1e-2", "launcher.n_jobs=2"),
        "+callbacks.fate={_target_: fates.Fate}",
        "+callbacks.fate.what=crash,memory,diverges,killed,a,b,c,d",
    ]
    done = command(*arguments, **fates)
    assert done.returncode == 1, done.stderr
    trials = {name.rpartition("=")[2]: trial for name, trial in trials_of(command, "fates").items()}
    assert {what: trial["state"] for what, trial in trials.items()} == {
        **dict.fromkeys(("crash", "memory", "diverges", "killed"), "failed"),
        **dict.fromkeys("abcd", "finished"),
    }
    assert trials["crash"]["exit"] == -signal.SIGSEGV
    assert trials["crash"]["why"] == "SIGSEGV"
    assert trials["killed"]["exit"] == -signal.SIGKILL
    assert trials["killed"]["why"] == "killed (SIGKILL): the system does that when memory runs out"
    assert trials["memory"]["why"].startswith("out of memory: ")
    assert trials["diverges"]["why"].startswith("step 6: not finite: loss nan")
    assert record_of(command, "fates")["status"] == "failed"
    for words in ("SIGSEGV", "killed (SIGKILL)", "out of memory", "step 6: not finite"):
        assert done.stdout.count(words) == 1, "a failure is told once"
    assert "val/loss" in done.stdout, "the table names what the trials are compared by"
    before = untouched(folder_of(command, "fates"))
    again = command(*arguments, **fates)
    assert again.returncode == 1
    assert "4 failed before; sweep.retry_failed=true tries again" in again.stdout
    assert untouched(folder_of(command, "fates")) == before
    retried = command(*arguments, "sweep.retry_failed=true", **{**fates, "CAUSES": "off"})
    assert retried.returncode == 0, retried.stdout + retried.stderr
    assert {trial["state"] for trial in trials_of(command, "fates").values()} == {"finished"}
    now = untouched(folder_of(command, "fates"))
    assert {name: now[name] for name in before} == before
    log = (folder_of(command, "fates") / "+callbacks.fate.what=crash" / "output.log").read_text()
    assert "going on from" in log
    assert len({trial["value"] for trial in trials_of(command, "fates").values()}) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_trials_save_and_the_same_command_goes_on(command, start, quick, fates, number):
    name = f"stopped_{number.name}"
    arguments = (f"name={name}", *quick, "optim.lr=1e-2,1e-3", "+callbacks.fate={_target_: fates.Fate, what: slow}")
    process = start(*arguments, **fates)
    first = folder_of(command, name) / "optim.lr=0.01"
    wait_until((first / "checkpoints" / "last.ckpt").exists, process)
    process.send_signal(number)
    wait_until(lambda: "saving after this step" in (first / "output.log").read_text(), process)
    process.send_signal(number)  # it sleeps for an hour: the second one kills
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number, errors
    assert "1 running trials save and end" in out
    record = record_of(command, name)
    assert record["status"] == "interrupted"
    assert {each: trial["state"] for each, trial in record["trials"].items()} == {
        "optim.lr=0.01": "interrupted",
        "optim.lr=0.001": "pending",
    }
    assert not processes_in(folder_of(command, name))


@pytest.mark.slow
def test_the_sweeps_time_is_over(command, quick):
    endless = ("trainer.max_steps=100000", "scheduler=constant", "trainer.val_check_interval=100000")
    done = command("train.py", "-m", "name=over", *quick, *endless, "optim.lr=1e-2,1e-3", "sweep.max_time=00:00:00:40")
    assert done.returncode == 143, done.stderr
    assert "sweep.max_time is over" in done.stdout
    record = record_of(command, "over")
    assert record["status"] == "interrupted"
    assert [trial["state"] for trial in record["trials"].values()] == ["interrupted", "pending"]
    assert (folder_of(command, "over") / "optim.lr=0.01" / "checkpoints" / "last.ckpt").exists()


@pytest.mark.slow
def test_a_trial_of_several_processes_does_not_start_the_sweep_again(command, quick):
    two = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "data.batch_size=2")
    done = command("train.py", "-m", "name=ddp", *quick, *two, "optim.lr=1e-2,1e-3")
    assert done.returncode == 0, done.stdout + done.stderr
    trials = trials_of(command, "ddp")
    assert [trial["state"] for trial in trials.values()] == ["finished", "finished"]
    assert done.stdout.count(" started") == 2


@pytest.mark.slow
def test_a_killed_parent_takes_workers_of_its_trials_with_it(command, start, quick, fates):
    workers = ("data.num_workers=2", "optim.lr=1e-2", "+callbacks.fate={_target_: fates.Fate, what: slow}")
    process = start("name=orphans", *quick, *workers, **fates)
    folder = folder_of(command, "orphans")
    wait_until((folder / "single" / "checkpoints" / "last.ckpt").exists, process)
    assert len(processes_in(folder)) >= 3  # the trial, and its workers
    process.kill()
    process.communicate()
    wait_for_the_end_of_all(folder)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("what", ["parent", "parent and children"])
def test_a_sweep_that_is_killed_ends_like_an_unbroken_one(command, start, quick, what):
    """Ten times at random moments; a sweep that has finished by then begins anew under another name."""
    choice, kills, number = random.Random(what), 0, 0
    plain = what.replace(" ", "_")
    unbroken = f"unbroken_{plain}"
    grid = (*quick, "optim.lr=1e-2,1e-3", "seed=0,1", "launcher.n_jobs=2")
    began = time.monotonic()
    done = command("train.py", "-m", f"name={unbroken}", *grid)
    assert done.returncode == 0, done.stderr
    took = time.monotonic() - began
    while kills < 10:
        name = f"killed_{plain}_{number}"
        folder = folder_of(command, name)
        finished: dict[str, str] = {}
        while kills < 10 and len(finished) < 4:
            process = start(f"name={name}", *grid)
            time.sleep(choice.uniform(0, took))
            children = processes_in(folder) if what != "parent" else []
            kills += process.poll() is None
            for pid in [*children, process.pid]:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            process.communicate()
            wait_for_the_end_of_all(folder)
            now = untouched(folder)
            assert {trial: now[trial] for trial in finished} == finished, "a finished trial was started again"
            finished = now
        done = command("train.py", "-m", f"name={name}", *grid)
        assert done.returncode == 0, done.stdout + done.stderr
        now = untouched(folder)
        assert {trial: now[trial] for trial in finished} == finished
        assert set(trials_of(command, name)) == set(now) == set(trials_of(command, unbroken))
        for trial in now:
            assert_same_end(folder / trial, folder_of(command, unbroken) / trial)
        number += 1


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_search_goes_on_as_if_it_had_never_stopped_and_counts_failures_as_bad(command, quick, fates):
    space = (
        *("sweep=optuna_tpe", "hydra.sweeper.sampler.n_startup_trials=1", "+callbacks.fate={_target_: fates.Fate}"),
        "+callbacks.fate.what=choice(crash,nothing)",
    )
    whole = command("train.py", "-m", "name=whole", *quick, *space, "sweep.n_trials=5", **fates)
    states = [trial["state"] for trial in trials_of(command, "whole").values()]
    assert whole.returncode == (1 if "failed" in states else 0), whole.stdout + whole.stderr
    assert {"failed", "finished"} == set(states), "this seed draws both"
    command("train.py", "-m", "name=parts", *quick, *space, "sweep.n_trials=3", **fates)
    before = untouched(folder_of(command, "parts"))
    assert len(trials_of(command, "parts")) == 3
    command("train.py", "-m", "name=parts", *quick, *space, "sweep.n_trials=5", **fates)
    now = untouched(folder_of(command, "parts"))
    assert {name: now[name] for name in before} == before
    values = [{name: trial["value"] for name, trial in trials_of(command, name).items()} for name in ("whole", "parts")]
    assert values[0] == values[1]
    assert len(values[0]) == 5
    with sqlite3.connect(folder_of(command, "parts") / "optuna.db") as study:
        assert study.execute("select count(*) from trials").fetchone() == (5,)


def test_the_bounds_of_a_search_are_checked_before_its_first_trial(command, quick):
    space = ("sweep=random", "data.block_size=int(interval(16,128))")
    done = command("train.py", "-m", "name=bounds", *quick, *space)
    assert done.returncode == 2
    assert "data.block_size=128 is more than the 64 positions of" in done.stderr
    assert not folder_of(command, "bounds").exists()


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_sweep_takes_little_longer_than_its_commands_one_by_one(fresh_command, quick):
    """Two seconds a trial at most: what starts and ends it, and the checks before the first."""
    seeds = range(8)
    fresh_command("train.py", "name=warm", *quick, "optim.lr=1e-2")  # the data is read and encoded
    began = time.monotonic()
    for seed in seeds:
        done = fresh_command("train.py", f"name=alone_{seed}", *quick, "optim.lr=1e-2", f"seed={seed}")
        assert done.returncode == 0, done.stderr
    alone = time.monotonic() - began
    began = time.monotonic()
    done = fresh_command(
        "train.py", "-m", "name=together", *quick, "optim.lr=1e-2", f"seed={','.join(map(str, seeds))}"
    )
    together = time.monotonic() - began
    assert done.returncode == 0, done.stdout + done.stderr
    print(f"eight commands {alone:.1f} s, a sweep of eight trials {together:.1f} s")
    assert together <= alone + 2 * len(seeds)
