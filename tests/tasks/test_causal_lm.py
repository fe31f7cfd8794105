import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import tiny
import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import AttentionInterface, AutoModelForCausalLM

from domaintune import training
from domaintune.config.schema import DataConfig, OptimConfig, SchedulerConfig
from domaintune.data.batching import Window, collate, pad
from domaintune.data.language_datamodule import LanguageDataModule
from domaintune.data.splitting import read_splits
from domaintune.errors import RunError, UsageError
from domaintune.kernels import attention
from domaintune.kernels.attention import isolate_documents
from domaintune.optim.schedules import warmup_then
from domaintune.tasks.causal_lm import CausalLM
from domaintune.training import train

PAD = 0
CONSTANT = SchedulerConfig(name="constant")
STANDING_STILL = OptimConfig(lr=1e-30)  # too little to move a weight: every step sees the same model


def windows(lengths: list[int]) -> list[Window]:
    draw = torch.Generator().manual_seed(sum(lengths))
    rows = [torch.randint(tiny.VOCABULARY, (length,), generator=draw) for length in lengths]
    return [tiny.window(row, 3 * (len(row) - 1)) for row in rows]


ROWS = windows([5, 17, 2, 9, 30, 3, 11, 12, 4, 25, 7])  # of 8 rows a step the last one of an epoch has 3


def task(model: Any, optim: OptimConfig = STANDING_STILL, scheduler: SchedulerConfig = CONSTANT) -> CausalLM:
    return CausalLM(model, optim, scheduler)


def trainer(**settings: Any) -> L.Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    return L.Trainer(accelerator="cpu", devices=1, logger=False, num_sanity_val_steps=0, **quiet, **settings)


def loader(rows: list[Window], batch_size: int) -> DataLoader[Window]:
    return DataLoader(rows, batch_size, collate_fn=partial(pad, pad_token_id=PAD))


def mean_by_hand(model: Any, rows: list[Window]) -> torch.Tensor:
    """One row at a time, unpadded, with transformers' own loss: the mean over all predicted tokens."""
    ids = [row["input_ids"][None] for row in rows]
    sums = [model(input_ids=row, labels=row).loss * (row.shape[1] - 1) for row in ids]
    return torch.stack(sums).sum() / sum(row.shape[1] - 1 for row in ids)


def flat_gradient(model: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.grad.reshape(-1) for parameter in model.parameters() if parameter.grad is not None])


def gradient_by_hand(model: nn.Module, rows: list[Window]) -> torch.Tensor:
    model.zero_grad()
    mean_by_hand(model, rows).backward()
    return flat_gradient(model).clone()


def relative(got: torch.Tensor, wanted: torch.Tensor) -> float:
    return ((got - wanted).norm() / wanted.norm()).item()


class AfterEachStep(L.Callback):
    """Keeps the gradient, the learning rate and what was logged of every optimizer step."""

    def __init__(self) -> None:
        self.gradients: list[torch.Tensor] = []
        self.rates: list[float] = []
        self.logged: list[dict[str, float]] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"])

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        if trainer.global_step > len(self.gradients):
            self.gradients.append(flat_gradient(pl_module).clone())
            self.logged.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def fitted(
    model: Any, rows: list[Window], batch_size: int, optim: OptimConfig = STANDING_STILL, **settings: Any
) -> Any:
    steps, made = AfterEachStep(), task(model, optim)
    trainer(callbacks=[steps], max_epochs=1, **settings).fit(made, loader(rows, batch_size))
    return steps, made


@pytest.mark.parametrize("make", [tiny.gpt2, tiny.llama], ids=["gpt2", "llama"])
def test_the_loss_of_a_padded_batch_is_the_mean_over_its_real_tokens(make: Callable[[], Any]) -> None:
    model = make().eval()
    with torch.no_grad():
        loss, tokens = task(model)(pad(ROWS, PAD))
        wanted = mean_by_hand(model, ROWS)
    assert tokens == sum(len(row["input_ids"]) - 1 for row in ROWS)
    assert loss / tokens == pytest.approx(float(wanted), rel=1e-5)


@pytest.mark.parametrize("make", [tiny.gptj, tiny.phi, tiny.cohere, tiny.granite])
def test_a_head_that_is_not_linear_takes_the_way_over_its_logits(make: Callable[[], Any]) -> None:
    model = make().eval()
    made = task(model)
    with torch.no_grad():
        loss, tokens = made(pad(ROWS, PAD))
        wanted = mean_by_hand(model, ROWS)
    assert not made.head_is_linear
    assert loss / tokens == pytest.approx(float(wanted), rel=1e-5)


def test_both_ways_give_the_same_loss_and_gradient() -> None:
    model = tiny.gpt2().eval()
    losses, gradients = [], []
    for head_is_linear in (True, False):
        made = task(model)
        made.head_is_linear = head_is_linear
        model.zero_grad()
        loss, _ = made(pad(ROWS, PAD))
        loss.backward()
        losses.append(loss.item())
        gradients.append(flat_gradient(model).clone())
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert relative(gradients[0], gradients[1]) < 1e-5


def test_what_stands_in_the_padding_makes_no_difference() -> None:
    model = tiny.gpt2().eval()
    with torch.no_grad():
        one, other = (task(model)(pad(ROWS, token))[0] for token in (0, 77))
    assert one == other


TEXTS = [f"Text number {number}, " + "word über 😀 word " * (number % 9) for number in range(90)]


@pytest.fixture(scope="module")
def data(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], LanguageDataModule]:
    folder = tmp_path_factory.mktemp("data")
    path, cache = tiny.jsonl(folder / "texts.jsonl", *TEXTS), str(folder / "cache")
    settings = DataConfig(path=path, val_fraction=0.4, test_fraction=0.2, block_size=24, batching="padded")
    splits = read_splits(settings, cache)
    return lambda batch_size: LanguageDataModule(replace(settings, batch_size=batch_size), splits, tokenizer, 0, cache)


def test_validation_metrics_are_those_computed_by_hand_whatever_the_batch_size(
    tokenizer: Any, data: Callable[[int], LanguageDataModule]
) -> None:
    model = tiny.gpt2(vocab_size=len(tokenizer))
    validation = data(1).datasets["val"]
    rows = [validation.window(index) for index in range(len(validation))]
    assert len(rows) > 30
    with torch.no_grad():
        mean = float(mean_by_hand(model.eval(), rows))
    total, text_bytes = mean * validation.predicted_tokens, sum(row["bytes"] for row in rows)
    wanted = {
        "val/loss": mean,
        "val/perplexity": math.exp(mean),
        "val/bits_per_byte": total / math.log(2) / text_bytes,
    }
    evaluations = []
    for batch_size in (1, 3, 8):
        made = task(model)
        (validates := trainer()).validate(made, datamodule=data(batch_size), verbose=False)
        assert {name: float(value) for name, value in validates.callback_metrics.items()} == pytest.approx(
            wanted, rel=1e-5
        )
        evaluations.append(made.evaluation)
    assert evaluations[1] == pytest.approx(evaluations[0], rel=1e-6)
    assert evaluations[2] == pytest.approx(evaluations[0], rel=1e-6)


def test_a_second_validation_starts_from_zero(tokenizer: Any, data: Callable[[int], LanguageDataModule]) -> None:
    made, given = task(tiny.gpt2(vocab_size=len(tokenizer))), data(8)
    found = []
    for limit in (1, 1.0, 1):
        trainer(limit_val_batches=limit).validate(made, datamodule=given, verbose=False)
        found.append(made.evaluation)
    part, whole, again = found
    assert part == again != whole


def test_the_test_side_has_its_own_figures(tokenizer: Any, data: Callable[[int], LanguageDataModule]) -> None:
    made, given = task(tiny.gpt2(vocab_size=len(tokenizer))), data(8)
    trainer().test(made, datamodule=given, verbose=False)
    logged = made.evaluation
    dataset = given.datasets["test"]
    with torch.no_grad():
        wanted = mean_by_hand(made.model.eval(), [dataset.window(index) for index in range(len(dataset))])
    assert logged.keys() == {"test/loss", "test/perplexity", "test/bits_per_byte"}
    assert logged["test/loss"] == pytest.approx(float(wanted), rel=1e-5)


@pytest.mark.parametrize(("batch_size", "accumulate"), [(8, 1), (4, 2), (2, 4), (1, 8)])
def test_the_gradient_is_the_mean_over_the_tokens_of_a_step_however_its_rows_are_cut_up(
    batch_size: int, accumulate: int
) -> None:
    """Eleven rows: a step over eight, and a short one over three at the end of the epoch."""
    model = tiny.gpt2()
    steps, _ = fitted(model, ROWS, batch_size, accumulate_grad_batches=accumulate)
    assert len(steps.gradients) == 2
    for gradient, rows in zip(steps.gradients, (ROWS[:8], ROWS[8:]), strict=True):
        assert relative(gradient, gradient_by_hand(model, rows)) < 1e-5


@pytest.mark.parametrize(("batch_size", "accumulate"), [(8, 1), (2, 4), (1, 8)])
def test_the_logged_loss_is_the_mean_over_the_tokens_of_a_step(batch_size: int, accumulate: int) -> None:
    model = tiny.gpt2()
    steps, _ = fitted(model, ROWS, batch_size, accumulate_grad_batches=accumulate, log_every_n_steps=1)
    with torch.no_grad():
        wanted = [float(mean_by_hand(model, rows)) for rows in (ROWS[:8], ROWS[8:])]
    assert [logged["train/loss"] for logged in steps.logged] == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize(("batch_size", "accumulate"), [(8, 1), (2, 4)])
def test_tokens_trained_are_the_predicted_ones(batch_size: int, accumulate: int) -> None:
    _, made = fitted(tiny.gpt2(), ROWS, batch_size, accumulate_grad_batches=accumulate)
    assert made.tokens_trained == sum(len(row["input_ids"]) - 1 for row in ROWS)


def test_clipping_limits_the_norm_and_keeps_the_direction() -> None:
    model = tiny.gpt2()
    steps, _ = fitted(model, ROWS[:8], 2, accumulate_grad_batches=4, gradient_clip_val=0.01, log_every_n_steps=1)
    wanted = gradient_by_hand(model, ROWS[:8])
    assert float(wanted.norm()) > 0.1
    assert float(steps.gradients[0].norm()) == pytest.approx(0.01, rel=1e-4)
    assert relative(steps.gradients[0] / 0.01, wanted / wanted.norm()) < 1e-3
    assert steps.logged[0]["train/grad_norm"] == pytest.approx(float(wanted.norm()), rel=1e-5)


@pytest.mark.parametrize("limit", [None, 0.0, 1e9])
def test_without_a_limit_or_below_it_nothing_is_clipped(limit: float | None) -> None:
    model = tiny.gpt2()
    steps, _ = fitted(model, ROWS[:8], 8, gradient_clip_val=limit)
    assert relative(steps.gradients[0], gradient_by_hand(model, ROWS[:8])) < 1e-5


def test_a_batch_that_predicts_nothing_moves_nothing() -> None:
    model = tiny.gpt2()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    empty = DataLoader([0], batch_size=1, collate_fn=lambda _: collate([], None, PAD))
    made = task(model, OptimConfig(lr=1e-2, weight_decay=0.0))
    trainer(max_epochs=1, gradient_clip_val=1.0).fit(made, empty)
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def test_the_learning_rate_follows_its_schedule_step_by_step() -> None:
    steps, scheduler = AfterEachStep(), SchedulerConfig(name="cosine", warmup_steps=3, min_lr_rate=0.1)
    made = task(tiny.gpt2(), OptimConfig(lr=1e-3), scheduler)
    trainer(callbacks=[steps], max_steps=9, max_epochs=-1, accumulate_grad_batches=2).fit(made, loader(ROWS, 2))
    wanted = [1e-3 * warmup_then("cosine", step, 9, 3, 0.1) for step in range(9)]
    assert steps.rates == pytest.approx(wanted, rel=1e-9)


def test_one_step_is_a_step_of_adamw_on_the_mean_gradient() -> None:
    model, reference = tiny.gpt2(), tiny.gpt2()
    fitted(model, ROWS[:8], 2, OptimConfig(lr=1e-3, weight_decay=0.0), accumulate_grad_batches=4)
    optimizer = torch.optim.AdamW(reference.parameters(), lr=1e-3, weight_decay=0.0, eps=1e-8)
    gradient_by_hand(reference, ROWS[:8])
    optimizer.step()
    start = torch.cat([parameter.reshape(-1) for parameter in tiny.gpt2().parameters()])
    moved, wanted = (torch.cat([p.reshape(-1) for p in m.parameters()]) - start for m in (model, reference))
    assert relative(moved, wanted) < 1e-2  # where a gradient is nearly zero AdamW magnifies rounding


def test_a_checkpoint_remembers_the_tokens_trained() -> None:
    _, made = fitted(tiny.gpt2(), ROWS, 8)
    checkpoint: dict[str, Any] = {"state_dict": made.state_dict()}
    made.on_save_checkpoint(checkpoint)
    resumed = task(tiny.gpt2())
    resumed.on_load_checkpoint(checkpoint)
    assert resumed.tokens_trained == made.tokens_trained > 0


@pytest.mark.parametrize("batching", ["packed", "padded"])
@pytest.mark.parametrize("linear", [True, False])
def test_losses_are_kept_by_document_and_add_up_to_the_metric(
    tokenizer: Any, tmp_path: Path, batching: str, linear: bool
) -> None:
    """Documents of one window and of several; each by hand, a window at a time."""
    path, cache = tiny.jsonl(tmp_path / "texts.jsonl", *TEXTS), str(tmp_path / "cache")
    config = DataConfig(path=path, val_fraction=0.4, test_fraction=0.2, block_size=24, batching=batching, batch_size=3)
    splits = read_splits(config, cache)
    data = LanguageDataModule(config, splits, tokenizer, 0, cache)
    model = tiny.gpt2(vocab_size=len(tokenizer))
    isolate_documents(model)
    made = task(model)
    made.head_is_linear = linear
    trainer().validate(made, datamodule=data, verbose=False)
    found = data.by_document("val", made.of_windows)
    assert found["loss"].sum() / found["tokens"].sum() == pytest.approx(made.evaluation["val/loss"], abs=1e-9)
    per_byte = found["loss"].sum() / math.log(2) / found["bytes"].sum()
    assert per_byte == pytest.approx(made.evaluation["val/bits_per_byte"], abs=1e-9)
    dataset, plain = data.datasets["val"], tiny.gpt2(vocab_size=len(tokenizer)).eval()
    assert len(dataset) > len(found["loss"]) == len(dataset.documents)
    assert (found["hash"] == splits.documents.hashes[dataset.documents]).all()
    by_hand: dict[int, float] = {}
    for index in range(len(dataset)):
        ids = dataset.window(index)["input_ids"][None]
        with torch.no_grad():
            loss = float(plain(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)
        (number,) = dataset.documents_of(index)
        by_hand[number] = by_hand.get(number, 0.0) + loss
    assert found["loss"].tolist() == pytest.approx([by_hand[n] for n in dataset.documents.tolist()], rel=1e-4)


def test_of_a_part_of_the_validation_what_was_measured_is_kept(
    tokenizer: Any, data: Callable[[int], LanguageDataModule]
) -> None:
    made, given = task(tiny.gpt2(vocab_size=len(tokenizer))), data(4)
    trainer(limit_val_batches=2).validate(made, datamodule=given, verbose=False)
    found = given.by_document("val", made.of_windows)
    assert np.count_nonzero(made.of_windows[:, 1]) == 8
    assert 0 < len(found["loss"]) <= 8
    assert found["loss"].sum() / found["tokens"].sum() == pytest.approx(made.evaluation["val/loss"], abs=1e-9)
    per_byte = found["loss"].sum() / math.log(2) / found["bytes"].sum()
    assert per_byte == pytest.approx(made.evaluation["val/bits_per_byte"], abs=1e-9)


def test_a_checkpoint_holds_what_is_trained_and_nothing_else() -> None:
    model = tiny.gpt2()
    model.transformer.requires_grad_(False)
    model.transformer.h[1].requires_grad_(True)
    made = task(model)
    checkpoint: dict[str, Any] = {"state_dict": made.state_dict()}
    made.on_save_checkpoint(checkpoint)
    assert checkpoint["state_dict"].keys() == {name for name in made.state_dict() if ".h.1." in name}
    made.on_load_checkpoint(checkpoint)
    checkpoint["state_dict"].popitem()
    with pytest.raises(RunError, match="lacks 1 trained weights"):
        made.on_load_checkpoint(checkpoint)


def test_what_is_frozen_stays_as_it_is() -> None:
    model = tiny.gpt2()
    model.transformer.wte.requires_grad_(False)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    fitted(model, ROWS, 8, OptimConfig(lr=1e-2, layer_decay=0.5))
    moved = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    assert moved == before.keys() - {"transformer.wte.weight"}


@pytest.mark.parametrize(("precision", "leaks"), [("32", False), ("bf16-mixed", True)])
def test_isolation_is_probed_in_the_precision_that_trains(
    prepared: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, precision: str, leaks: bool
) -> None:
    """A kernel that sees across documents in half precision alone, as one of a GPU may."""

    def attend(*given: Any, **more: Any) -> Any:
        narrow = torch.is_autocast_enabled("cpu")
        return attention.document_attention(*given, **({**more, "cu_seqlens": None} if narrow else more))

    monkeypatch.setitem(AttentionInterface._global_mapping, attention.DOCUMENTS, attend)
    given, run = prepared("causal_lm", "gpt2", f"trainer.precision={precision}")
    if leaks:
        with pytest.raises(UsageError, match="lets one document of a row see another"):
            train(given, run)
    else:
        train(given, run)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_what_is_frozen_is_held_in_half_precision(prepared: Callable[..., Any], family: str) -> None:
    """The adapters are trained over the rounded weights, and what is exported has these."""
    dtypes: set[tuple[bool, bool, torch.dtype]] = set()

    class Watch(L.Callback):
        def on_train_batch_start(self, trainer: L.Trainer, task: Any, batch: Any, batch_idx: int) -> None:
            dtypes.update((w.requires_grad, w.ndim > 1, w.dtype) for w in task.model.parameters())

    settings = ("peft=lora", "trainer.precision=bf16-mixed", "optim.lr=1e-2", "trainer.max_steps=8")
    given, run = prepared("causal_lm", family, *settings, "model.frozen_dtype=bfloat16")
    usual = training.build

    def build(*arguments: Any) -> Any:
        data, task = usual(*arguments)
        arguments[1].callbacks.append(Watch())
        return data, task

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(training, "build", build)
        train(given, run)
    assert dtypes == {(False, True, torch.bfloat16), (False, False, torch.float32), (True, True, torch.float32)}
    assert run.result["metrics"]["after"]["val/loss"] < run.result["metrics"]["before"]["val/loss"]
    base = AutoModelForCausalLM.from_pretrained(given.checkpoint.folder, dtype=torch.float32)
    exported = AutoModelForCausalLM.from_pretrained(run.export)
    assert exported.dtype == torch.float32
    rounded = base.get_input_embeddings().weight.bfloat16().float()
    assert torch.equal(exported.get_input_embeddings().weight, rounded)
    assert len(run.result["samples"]["after"]) == 3


def test_half_precision_of_what_is_frozen_needs_autocast(prepared: Callable[..., Any]) -> None:
    given, run = prepared("causal_lm", "gpt2", "peft=lora", "model.frozen_dtype=bfloat16")
    with pytest.raises(UsageError, match=r"needs trainer\.precision=bf16-mixed"):
        train(given, run)
    with pytest.raises(UsageError, match="nothing is frozen"):
        prepared("causal_lm", "gpt2", "model.frozen_dtype=bfloat16")
