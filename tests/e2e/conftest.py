"""Whole commands in processes of their own, as a person types them, on a small model and a small corpus."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

ROOT = Path(__file__).parents[2]
TOKENIZER = ROOT / "src" / "domaintune" / "assets" / "gpt2_tiny"
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def command(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """Runs `python FILE ARGUMENTS` in an empty folder, so that logs/ lands there; `cwd=` picks another."""
    home = tmp_path_factory.mktemp("home")

    def run(file: str, *arguments: str, cwd: Path = home, **environment: str) -> subprocess.CompletedProcess[str]:
        settings = {"DOMAINTUNE_CACHE": str(home / "cache"), "HF_HOME": str(home / "hf"), **environment}
        return subprocess.run(
            [sys.executable, str(ROOT / file), *arguments],
            cwd=cwd,
            env={**os.environ, **settings},
            capture_output=True,
            text=True,
            timeout=280,
        )

    run.home = home  # type: ignore[attr-defined]
    return run


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
def small(small_model: Path, corpus: Path) -> list[str]:
    """The arguments of a run of 20 steps that takes a second or two to train."""
    return [
        f"model.checkpoint={small_model}",
        f"data.path={corpus}",
        "data.block_size=64",
        "optim.lr=1e-2",
        "trainer=cpu",
        "trainer.max_steps=20",
        "trainer.max_epochs=-1",
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
