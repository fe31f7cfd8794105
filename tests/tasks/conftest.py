"""Rows of each format, and whole runs on tiny checkpoints of several families."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import families
import pytest
import tiny

from domaintune.config.checks import check
from domaintune.preparing import Prepared, prepare
from domaintune.runs.folder import RunFolder

DATA = {  # of a task
    "causal_lm": "domain",
    "sequence_classification": "sentiment",
    "token_classification": "entities",
    "seq2seq": "summaries",
    "masked_lm": "masked",
}


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A tiny checkpoint of a family, made once."""
    home, made = tmp_path_factory.mktemp("families"), {}

    def checkpoint(name: str) -> Path:
        if name not in made:
            made[name] = families.save_family(name, home / name)
        return made[name]

    return checkpoint


@pytest.fixture
def prepared(
    compose: Callable[..., Any], checkpoints: Callable[[str], Path], tmp_path: Path
) -> Callable[..., tuple[Prepared, RunFolder]]:
    """What train.py hands to `train` for a task on a family's tiny checkpoint."""

    def made(task: str, family: str, *overrides: str, of: Any = None) -> tuple[Prepared, RunFolder]:
        file = tiny.jsonl(tmp_path / "rows.jsonl", *(families.rows(DATA[task]) if of is None else of))
        settings = [f"data={DATA[task]}", f"data.path={file}", f"model.checkpoint={checkpoints(family)}"]
        settings += ["data.block_size=32", "data.target_size=16", "data.batch_size=8", "model.dropout=0"]
        settings += ["trainer=cpu", "trainer.max_steps=2", "trainer.val_check_interval=2", "trainer.precision=32"]
        settings += ["optim.lr=1e-2", "callbacks.samples.max_new_tokens=4", "logger=none"]
        settings += ["task.generate_examples=3"] * (task == "seq2seq")
        config = check(compose(*settings, *overrides))
        prepared = prepare(config)
        run = RunFolder(tmp_path / "run")
        run.claim(config, prepared.hashes(), "python train.py")
        return prepared, run

    return made


def read(file: Path) -> Any:
    return json.loads(file.read_text())
