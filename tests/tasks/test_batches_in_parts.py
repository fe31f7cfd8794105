"""A batch of examples is cut into parts of like lengths, and its gradient is that of the whole batch."""

from collections.abc import Callable
from typing import Any

import lightning as L
import pytest
import torch

from domaintune.data.example_datamodule import PASS_TOKENS
from domaintune.models.sharding import FullyShardedStrategy
from domaintune.training import build

CASES = [
    ("sequence_classification", "bert"),
    ("token_classification", "roberta"),
    ("seq2seq", "t5"),
    ("masked_lm", "bert"),
]


def trainer_of(**settings: Any) -> L.Trainer:
    return L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, **settings)


def gradient(task: Any, batch: Any) -> torch.Tensor:
    task.zero_grad()
    task._step_sums.clear()
    task.training_step(batch, 0).backward()
    return torch.cat([weight.grad.flatten() for weight in task.parameters() if weight.grad is not None])


@pytest.mark.parametrize(("name", "family"), CASES)
def test_parts_give_the_gradient_of_the_whole_batch(prepared: Callable[..., Any], name: str, family: str) -> None:
    given, _ = prepared(name, family)
    data, task = build(given, trainer_of())
    task.trainer = data.trainer
    task.train()
    batch = next(iter(data._batches("train", 0)))
    rows = [[(0, row[0])] if name == "masked_lm" else row for row in batch]
    examples = [data.datasets["train"][row] for row in rows]
    collate = data._collation("train")
    assert collate.keywords["pass_tokens"] == PASS_TOKENS["cpu"]
    cut, whole = collate(examples, pass_tokens=1), collate(examples, pass_tokens=None)
    assert len(cut["parts"]) > 1 == len(whole["parts"])
    one, other = gradient(task, cut), gradient(task, whole)
    assert (one - other).norm() < 1e-5 * other.norm()
    assert len({len(row["input_ids"]) for each in examples for row in each}) > 1


@pytest.mark.parametrize(("name", "family"), CASES)
def test_the_padding_that_is_told_is_that_of_the_batches(prepared: Callable[..., Any], name: str, family: str) -> None:
    given, _ = prepared(name, family)
    data, _ = build(given, trainer_of())
    for side, told in data.accounts().items():
        loader = data._loader(side)
        parts = [part for batch in loader for part in (batch["parts"] if side == "train" else [batch])]
        held = sum(part["tokens"] for part in parts)
        places = sum(part["input_ids"].numel() + part["labels"].numel() * (name == "seq2seq") for part in parts)
        assert told.padding == pytest.approx(1 - held / places), side


def test_where_weights_are_split_all_devices_do_one_pass(prepared: Callable[..., Any]) -> None:
    given, _ = prepared("sequence_classification", "bert")
    data, _ = build(given, trainer_of())
    data.trainer = trainer_of(strategy=FullyShardedStrategy(), devices=1)
    assert data._collation("train").keywords["pass_tokens"] is None
