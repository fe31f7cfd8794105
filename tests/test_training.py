"""The arithmetic of this program is that of the classic loop, step by step; how a run ends before its first step."""

import json
import os
import signal
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import tiny
import torch
from torch.nn.utils.rnn import pad_sequence

from domaintune import trainers, training
from domaintune.config.composing import default_config
from domaintune.config.schema import DataConfig, OptimConfig, SchedulerConfig
from domaintune.data.language_datamodule import LanguageDataModule
from domaintune.data.splitting import read_splits
from domaintune.kernels.attention import isolate_documents
from domaintune.models.loading import load_tokenizer
from domaintune.models.locating import locate
from domaintune.preparing import prepare
from domaintune.runs.folder import RunFolder
from domaintune.tasks.causal_lm import CausalLM

STEPS, LR = 20, 1e-3
TEXT = "The quick brown fox jumps over the lazy dog while nobody is looking at all. "


class Recording(L.Callback):
    """The documents and the loss of each step."""

    def __init__(self) -> None:
        self.documents: list[list[torch.Tensor]] = []
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        flat, labels = batch["input_ids"].flatten(), batch["labels"].flatten()
        pieces = pairwise(batch["cu_seqlens"].tolist())
        self.documents.append([flat[a:b].clone() for a, b in pieces if (labels[a:b] != -100).any()])
        self.losses.append(float(trainer.callback_metrics["train/loss"]))


def classic_loop(model: Any, steps: list[list[torch.Tensor]]) -> list[float]:
    """A document a row, padded and masked, transformers' own loss, torch's AdamW."""
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.0), []
    for rows in steps:
        ids = pad_sequence(rows, batch_first=True)
        mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        loss = model(input_ids=ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_loss_curve_is_that_of_the_classic_loop(tmp_path: Path, compiled: bool) -> None:
    draw = torch.Generator().manual_seed(0)
    lengths = torch.randint(20, 200, (600,), generator=draw).tolist()
    texts = [f"{number}: " + (TEXT * 4)[number % 60 :][:length] for number, length in enumerate(lengths)]
    tokenizer = load_tokenizer(locate("embedded:gpt2_tiny", needs_weights=False), CausalLM.head)
    config = DataConfig(path=tiny.jsonl(tmp_path / "texts.jsonl", *texts), block_size=128, batch_size=4)
    cache = str(tmp_path / "cache")
    data = LanguageDataModule(config, read_splits(config, cache), tokenizer, 0, cache)
    model, reference = (tiny.gpt2(vocab_size=8192, n_positions=128) for _ in range(2))
    isolate_documents(model)
    recording = Recording()
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=STEPS,
        max_epochs=-1,
        limit_val_batches=0,
        log_every_n_steps=1,
        callbacks=[recording],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    optim = OptimConfig(lr=LR, weight_decay=0.0)
    task = CausalLM(model, optim, SchedulerConfig(name="constant"), (4, 128) if compiled else None)
    held: list[bool] = []  # whether gradients were, as the model began
    model.base_model.register_forward_pre_hook(
        lambda *_: held.append(any(weight.grad is not None for weight in model.parameters()))
    )
    trainer.fit(task, datamodule=data)
    expected = classic_loop(reference.train(), recording.documents)
    assert recording.losses[-1] < recording.losses[0] - 0.5, "it learns"
    assert recording.losses == pytest.approx(expected, abs=1e-4)
    assert not any(held), "memory that the forward pass could use"
    assert compiled or len(held) == STEPS


def test_a_signal_while_texts_are_encoded_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = tiny.jsonl(tmp_path / "texts.jsonl", *(f"{number}: {TEXT}" for number in range(30)))
    config = default_config("name=stopped", "trainer=cpu", f"data.path={corpus}", f"paths.cache={tmp_path}/cache")
    prepared, run = prepare(config), RunFolder(tmp_path / "run")
    run.claim(config, prepared.hashes(), "train.py")
    monkeypatch.setattr(training, "build", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit) as stopped:
        training.train(prepared, run)
    assert stopped.value.code == 128 + signal.SIGTERM
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "interrupted"


def test_under_fp16_the_loss_scale_begins_where_a_sum_does_not_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.amp, "GradScaler", lambda device, init_scale: (device, init_scale))
    for labels, scale in ((4000.0, 2.0**4), (8.0, 2.0**13), (0.0, 2.0**16)):
        trainer: Any = SimpleNamespace(precision_plugin=SimpleNamespace(scaler="Lightning's"))
        trainers.scale_for_sums(trainer, labels)
        assert trainer.precision_plugin.scaler == ("cuda", scale)
    other: Any = SimpleNamespace(precision_plugin=SimpleNamespace())
    trainers.scale_for_sums(other, 8.0)
    assert not hasattr(other.precision_plugin, "scaler")


@pytest.mark.parametrize(("group", "inference_mode"), [("fsdp", False), ("ddp", None)])
def test_split_weights_are_evaluated_without_inference_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: str, inference_mode: bool | None
) -> None:
    """FSDP2 gathers them into tensors that have a version; on a GPU an inference tensor has none."""
    monkeypatch.setattr(trainers, "make_trainer", lambda **settings: settings)
    built: Any = trainers.build_trainer(default_config(f"trainer={group}", "logger=none"), RunFolder(tmp_path))
    assert built.get("inference_mode") is inference_mode
