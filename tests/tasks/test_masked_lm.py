from collections.abc import Callable
from typing import Any

import lightning as L
import pytest
import torch
from transformers import AutoModelForMaskedLM

from domaintune.data.batching import IGNORED
from domaintune.models.loading import logits_at
from domaintune.preparing import prepare
from domaintune.training import build, evaluate, train


@pytest.fixture
def built(prepared: Callable[..., Any]) -> Callable[..., tuple[Any, Any]]:
    def made(family: str, *overrides: str, of: Any = None) -> tuple[Any, Any]:
        given, _ = prepared("masked_lm", family, *overrides, of=of)
        data, task = build(given, L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False))
        return data, task.eval()

    return made


def same(one: Any, other: Any) -> bool:
    return torch.equal(one["input_ids"], other["input_ids"]) and torch.equal(one["labels"], other["labels"])


def test_masks_are_a_function_of_seed_epoch_and_window(built: Callable[..., Any]) -> None:
    data, _ = built("bert", "task.mask_fraction=0.5")
    again, _ = built("bert", "task.mask_fraction=0.5")
    other, _ = built("bert", "task.mask_fraction=0.5", "seed=1")
    train_set = data.datasets["train"]
    assert all(same(train_set.masked(3, n), again.datasets["train"].masked(3, n)) for n in range(20))
    assert not all(same(train_set.masked(3, n), train_set.masked(4, n)) for n in range(20))
    assert not all(same(train_set.masked(3, n), other.datasets["train"].masked(3, n)) for n in range(20))
    sides = (data.datasets["val"], other.datasets["val"])
    assert all(same(sides[0].example(n), sides[1].example(n)) for n in range(len(sides[0]))), "validation stays"


def test_loaders_draw_anew_in_each_epoch_and_not_for_validation(built: Callable[..., Any]) -> None:
    data, _ = built("bert", "task.mask_fraction=0.5")

    def masked(loader: Any, epoch: int) -> dict[int, list[int]]:
        loader.batch_sampler.set_epoch(epoch)
        parts = [part for batch in loader for part in batch.get("parts", [batch])]
        pairs = [(part["windows"], part["labels"].tolist()) for part in parts]
        trimmed = [
            (window, [label for label in row if label != IGNORED])
            for ws, rows in pairs
            for window, row in zip(ws, rows, strict=True)
        ]
        return dict(trimmed)

    train_loader, val_loader = data.train_dataloader(), data.val_dataloader()
    assert masked(train_loader, 1) == masked(train_loader, 1) != masked(train_loader, 2)
    assert masked(val_loader, 1) == masked(val_loader, 2)


def test_fifteen_percent_are_masked_eighty_ten_ten(built: Callable[..., Any]) -> None:
    data, _ = built("bert")
    dataset = data.datasets["train"]
    tokens = labelled = masks = kept = 0
    for epoch in range(40):
        for index in range(len(dataset)):
            example = dataset.masked(epoch, index)
            chosen = example["labels"] != IGNORED
            whole = dataset.input_ids(index)
            assert torch.equal(example["labels"][chosen], whole[chosen])
            assert torch.equal(example["input_ids"][~chosen], whole[~chosen])
            assert not chosen[0]
            assert not chosen[-1], "special tokens stay"
            tokens += len(whole) - 2
            labelled += int(chosen.sum())
            masks += int((example["input_ids"][chosen] == data.tokenizer.mask_token_id).sum())
            kept += int((example["input_ids"] == whole)[chosen].sum())
    assert dataset.predicted_tokens * 40 == labelled
    assert labelled / tokens == pytest.approx(0.15, abs=0.02)
    assert masks / labelled == pytest.approx(0.8, abs=0.02)
    assert kept / labelled == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_the_loss_is_that_over_all_logits_whatever_the_batch(built: Callable[..., Any], family: str) -> None:
    data, task = built(family)
    examples = [data.datasets["val"].example(index) for index in range(len(data.datasets["val"]))]
    batch = data._collation("val")([[example] for example in examples])
    with torch.no_grad():
        loss, masked, _ = task(batch)
        wanted = 0.0
        for example in examples:
            alone = task.model(input_ids=example["input_ids"][None], labels=example["labels"][None]).loss
            wanted += float(alone) * int((example["labels"] != IGNORED).sum())
        places = (batch["labels"].flatten() != IGNORED).nonzero()[:, 0]
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        logits = task.model(**inputs).logits.flatten(0, 1)[places]
        assert torch.allclose(logits_at(task.model, inputs, places), logits, atol=1e-5)
        task.training = True  # but for its dropout
        without_logits, _, none = task(batch)
    assert float(loss) == pytest.approx(wanted, rel=1e-5)
    assert none is None, "the logits are never whole"
    assert float(without_logits) == pytest.approx(wanted, rel=1e-5)
    assert int(masked) == len(places)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_both_ways_to_the_loss_give_the_same_gradient(built: Callable[..., Any], family: str) -> None:
    data, task = built(family)
    batch = data._collation("val")(
        [[data.datasets["val"].example(index)] for index in range(len(data.datasets["val"]))]
    )
    task.training = True  # but for its dropout
    assert task.head_is_linear
    gradients = []
    for linear in (True, False):
        task.head_is_linear = linear
        task.zero_grad()
        task(batch)[0].backward()
        assert task.model.get_output_embeddings().bias.grad.any()
        gradients.append(torch.cat([weight.grad.flatten() for weight in task.parameters() if weight.grad is not None]))
    assert (gradients[0] - gradients[1]).norm() < 1e-5 * gradients[1].norm()


def test_a_document_longer_than_a_block_loses_no_token(built: Callable[..., Any]) -> None:
    data, _ = built("bert", "data.block_size=8")
    dataset = data.datasets["train"]
    assert dataset.dropped_tokens == 0
    assert max(len(dataset.input_ids(index)) for index in range(len(dataset))) == 8
    assert int((dataset.lengths - 2).sum()) == int((dataset.ends - dataset.firsts).sum())


def test_a_run_learns_and_exports(prepared: Callable[..., Any]) -> None:
    settings = ["trainer.max_steps=60", "trainer.max_epochs=-1", "trainer.val_check_interval=30"]
    given, run = prepared("masked_lm", "roberta", *settings)
    train(given, run)
    before, after = run.result["metrics"]["before"], run.result["metrics"]["after"]
    assert after["val/loss"] < before["val/loss"] - 1
    assert set(after) == {"val/loss", "val/perplexity", "val/accuracy"}
    assert "pipeline_tag: fill-mask" in (run.export / "README.md").read_text()
    AutoModelForMaskedLM.from_pretrained(run.export)
    given.config.model.checkpoint = str(run.export)
    metrics, tokens, unit, _ = evaluate(prepare(given.config))
    assert unit == "masked tokens"
    assert tokens > 0
    assert metrics["test/loss"] < before["val/loss"]


def test_names_of_special_tokens_in_the_texts_are_told(built: Callable[..., Any]) -> None:
    data, _ = built("bert", of=[{"text": f"what is [MASK] about {number}"} for number in range(60)])
    assert any("hold [MASK], which stays plain text" in note for note in data.notes())
