"""Whole commands in processes of their own, as a person types them, on a small model and a small corpus."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pydoc_data.topics import topics
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

ROOT = Path(__file__).parents[2]
TOKENIZER = ROOT / "src" / "domaintune" / "assets" / "gpt2_tiny"
LIMIT_SECONDS = 580  # below the limit of a test
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def fresh_command(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """Runs `python FILE ARGUMENTS` in an empty folder, so that logs/ lands there; `cwd=` picks another.

    A file is of this repository; an option of Python's stays as it is.
    """
    home = tmp_path_factory.mktemp("home")

    return commands_of(sys.executable, home)


def commands_of(python: Path | str, home: Path) -> Command:
    def run(file: str, *arguments: str, cwd: Path = home, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [python, file if file.startswith("-") else str(ROOT / file), *arguments],
            cwd=cwd,
            env=environment_of(home, **environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
        )

    run.home = home  # type: ignore[attr-defined]
    return run


@contextmanager
def preloading(folder: Path, **environment: str) -> Iterator[Path]:
    """The file of a `python` that runs commands with the imports done, in an empty folder; see preloaded.py."""
    server, place = Path(__file__).with_name("preloaded.py"), folder / "socket"
    python = folder / "python"
    python.write_text(
        f'#!/bin/sh\nexec {sys.executable} -S -E {server.with_name("python_on_path.py")} {place} {python} "$@"\n'
    )
    python.chmod(0o755)
    with subprocess.Popen(
        [sys.executable, str(server), str(place)], stdin=subprocess.PIPE, env={**os.environ, **environment}
    ) as process:
        while not place.exists():  # its imports take seconds
            assert process.poll() is None
            time.sleep(0.05)
        yield python
        process.stdin.close()  # type: ignore[union-attr]


@pytest.fixture(scope="session")
def python(fresh_command: Command, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A `python` with the imports done."""
    home = fresh_command.home  # type: ignore[attr-defined]
    with preloading(tmp_path_factory.mktemp("preloaded"), **environment_of(home)) as python:
        yield python


def shell_in(folder: Path, python: Path, **environment: str) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a line as a person types it into a shell, in an empty folder that is HOME too, with the imports done.

    In that folder are train.py and scripts/ of this repository, as in a clone; logs/ lands there. `shell.home` is it.

    Args:
        folder: an empty one.
        python: that of `preloading`.
        environment: of each line.
    """
    (folder / "bin").mkdir()
    (folder / "bin" / "python").symlink_to(python)
    command = folder / "bin" / "domaintune"
    command.write_text(f"#!{python}\nfrom domaintune.cli.main import main\n\nmain()\n")
    command.chmod(0o755)
    home = folder / "home"
    home.mkdir()
    for name in ("train.py", "scripts", "conf"):
        (home / name).symlink_to(ROOT / name)

    def run(line: str, cwd: Path = home, **more: str) -> subprocess.CompletedProcess[str]:
        asked = {"HOME": str(home), "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
        return subprocess.run(
            ["bash", "-c", line],
            cwd=cwd,
            env=environment_of(home, **(asked | environment | more)),
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
        )

    run.home = home  # type: ignore[attr-defined]
    return run


@pytest.fixture
def shell(command: Command, python: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """See `shell_in`."""
    return shell_in(tmp_path, python, **own_folders(command.home))  # type: ignore[attr-defined]


@pytest.fixture(scope="session")
def command(fresh_command: Command, python: Path) -> Command:
    """As `fresh_command` does, in a few seconds less."""
    return commands_of(python, fresh_command.home)  # type: ignore[attr-defined]


def own_folders(home: Path) -> dict[str, str]:
    return {"DOMAINTUNE_CACHE": str(home / "cache"), "HF_HOME": str(home / "hf")}


def environment_of(home: Path, **more: str) -> dict[str, str]:
    return {**os.environ, **own_folders(home), **more}


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 of 0.3M random parameters with the embedded tokenizer, as transformers saves one."""
    folder = tmp_path_factory.mktemp("small_model")
    torch.manual_seed(0)
    shape = GPT2Config(vocab_size=8192, n_positions=64, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
    GPT2LMHeadModel(shape).save_pretrained(folder)
    for file in TOKENIZER.glob("tokenizer*"):
        shutil.copy(file, folder)
    return folder


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty documents in a .jsonl file."""
    file = tmp_path_factory.mktemp("corpus") / "topics.jsonl"
    rows = [json.dumps({"text": text[:600]}) for _, text in sorted(topics.items())[:60]]
    file.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def short(small_model: Path, corpus: Path) -> list[str]:
    """The arguments that short runs share."""
    return [
        f"model.checkpoint={small_model}",
        f"data.path={corpus}",
        "data.block_size=64",
        "optim.lr=1e-2",
        "trainer=cpu",
        "trainer.max_epochs=-1",
    ]


@pytest.fixture(scope="session")
def small(short: list[str]) -> list[str]:
    """The arguments of a run of 20 steps that takes a second or two to train."""
    return [
        *short,
        "trainer.max_steps=20",
        "trainer.val_check_interval=8",
        "trainer.log_every_n_steps=2",
        "callbacks.samples.max_new_tokens=8",
    ]


@pytest.fixture(scope="session")
def finished(command: Command, small: list[str]) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A finished run's folder and what the command printed."""
    done = command("train.py", "name=finished", *small)
    assert done.returncode == 0, done.stderr
    return command.home / "logs" / "runs" / "finished", done  # type: ignore[attr-defined]


@pytest.fixture(scope="session")
def quick(short: list[str]) -> list[str]:
    """The arguments of a run of a second: twelve steps without samples."""
    return [
        *short,
        "trainer.max_steps=12",
        "trainer.val_check_interval=6",
        "trainer.log_every_n_steps=1",
        "checkpoint.every_steps=4",
        "deterministic=true",
        "~callbacks.samples",
    ]


@pytest.fixture(scope="session")
def start(command, python):
    """Starts train.py and leaves it running."""

    def started(*arguments: str, python: Path | str = python, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [python, str(ROOT / "train.py"), *arguments],
            cwd=command.home,
            env=environment_of(command.home, **environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return started


@pytest.fixture(scope="module")
def run_with_own(mine: Path, command: Command) -> Callable[..., str]:
    """Runs a command that finds the modules in a person's folder, the fixture `mine` of a test file.

    It returns what was printed. `code`: the exit status that is right.
    """

    def run(file: str, *arguments: str, code: int = 0) -> str:
        done = command(file, *arguments, PYTHONPATH=str(mine))
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


@pytest.fixture
def slowly(tmp_path: Path) -> SimpleNamespace:
    """What lets a run take a second a step from step 5 on, so that a signal comes in the middle of training."""
    (tmp_path / "slowly.py").write_text(
        "import os, time, lightning\n"
        "class Slowly(lightning.Callback):\n"
        "    def on_train_batch_end(self, trainer, *_):\n"
        "        time.sleep(1 if 'SLOWLY' in os.environ and trainer.global_step > 5 else 0)\n"
    )
    return SimpleNamespace(
        arguments=["+callbacks.slowly={_target_: slowly.Slowly}"],
        path={"PYTHONPATH": str(tmp_path)},
        environment={"PYTHONPATH": str(tmp_path), "SLOWLY": "1"},
    )


def folder_of(command: Any, name: str) -> Path:
    return command.home / "logs" / "runs" / name


def result_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text())


def weights_of(folder: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]


def assert_same_end(one: Path, other: Path) -> None:
    assert result_of(one)["metrics"] == result_of(other)["metrics"]
    first, second = weights_of(one), weights_of(other)
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def wait_for(file: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not file.exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
