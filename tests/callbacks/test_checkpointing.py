"""When checkpoints are saved, and what the schedule is in a run that goes on for longer."""

import math
import signal
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import tiny
import torch
from torch.utils.data import DataLoader

from domaintune.callbacks.checkpointing import BestCheckpoint, LastCheckpoint, between_steps
from domaintune.callbacks.stopping import StepTimer, StopOnSignal
from domaintune.config.schema import OptimConfig, SchedulerConfig
from domaintune.data.batching import pad
from domaintune.runs.checkpoints import WholeCheckpointIO
from domaintune.tasks.causal_lm import CausalLM


@pytest.mark.parametrize(
    ("every", "accumulate", "batches", "wanted"),
    [
        (21, 1, 84, 21),
        (21, 4, 84, 20),
        (21, 64, 84, 64),  # shorter than a step: after each
        (84, 64, 84, 84),  # the end of an epoch, where a step may be short
        (90, 64, 84, 90),  # counted across epochs
        (float("inf"), 4, 84, float("inf")),
        (70, 64, 70, 70),
        (60, 50, 84, 50),
        (80, 50, 84, 84),
    ],
)
def test_validation_comes_between_steps(every: float, accumulate: int, batches: float, wanted: float) -> None:
    assert between_steps(every, accumulate, batches) == wanted


class Watch(L.Callback):
    """At which batches of an epoch something was saved or validated, and the learning rate of each step."""

    def __init__(self) -> None:
        self.saved: list[int] = []
        self.validated: list[int] = []
        self.rates: dict[int, float] = {}

    def on_save_checkpoint(self, trainer: L.Trainer, *_: Any) -> None:
        self.saved.append(trainer.fit_loop.epoch_loop.batch_progress.current.ready)

    def on_validation_start(self, trainer: L.Trainer, task: Any) -> None:
        self.validated.append(trainer.fit_loop.epoch_loop.batch_idx + 1)

    def on_before_optimizer_step(self, trainer: L.Trainer, task: Any, optimizer: Any) -> None:
        self.rates[trainer.global_step] = optimizer.param_groups[0]["lr"]


class Unmeasured(CausalLM):
    """Its validations come when they are due, and measure nothing."""

    def begin_evaluation(self, side: str) -> None:
        self._sums = self.zeros(1)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        pass

    def end_evaluation(self, side: str) -> dict[str, float]:
        return {"loss": 0.0}


def fit(folder: Path, steps: int, resume: Path | None = None, **settings: Any) -> Watch:
    """Trains on ten batches of random tokens an epoch, and saves whenever that may be."""
    random = torch.Generator().manual_seed(0)
    rows = [tiny.window(torch.randint(tiny.VOCABULARY, (9,), generator=random), 9) for _ in range(10)]
    loader = DataLoader(rows, 1, collate_fn=partial(pad, pad_token_id=0))
    watch, signals = Watch(), StopOnSignal()
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=steps,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[watch, signals, LastCheckpoint(folder / "last.ckpt", 1, None, signals)],
        plugins=[WholeCheckpointIO()],
        **settings,
    )
    task = Unmeasured(tiny.gpt2(), OptimConfig(lr=1.0), SchedulerConfig(name="cosine"))
    trainer.fit(task, loader, loader, ckpt_path=resume, weights_only=True)
    return watch


def test_nothing_is_saved_within_a_step(tmp_path: Path) -> None:
    saved = fit(tmp_path, 6, accumulate_grad_batches=4, val_check_interval=0.3).saved
    assert saved
    assert {place % 4 for place in saved if place != 10} == {0}


@pytest.mark.parametrize("every", [8, 12, 20])
def test_an_interval_counted_across_epochs_ends_between_steps(tmp_path: Path, every: int) -> None:
    """Of ten micro-batches an epoch, the last step has two."""
    settings: Any = {"accumulate_grad_batches": 4, "val_check_interval": every, "check_val_every_n_epoch": None}
    watch = fit(tmp_path, 12, **settings)
    assert {place % 4 for place in watch.validated if place != 10} <= {0}
    assert len(watch.validated) == pytest.approx(40 / every, abs=1), "of four epochs"
    assert {place % 4 for place in watch.saved if place != 10} == {0}


def test_a_longer_run_takes_the_rate_of_the_longer_schedule_at_once(tmp_path: Path) -> None:
    whole = fit(tmp_path / "whole", 8).rates
    fit(tmp_path, 4)
    longer = fit(tmp_path, 8, resume=tmp_path / "last.ckpt").rates
    assert longer == {step: rate for step, rate in whole.items() if step >= 4}


@pytest.mark.parametrize("ignored", [True, False])
def test_a_closed_terminal_saves_unless_the_process_was_told_to_outlive_it(ignored: bool) -> None:
    before = signal.getsignal(signal.SIGHUP)
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
        with StopOnSignal().handling():
            assert (signal.getsignal(signal.SIGHUP) == signal.SIG_IGN) is ignored
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("within_a_step", [True, False])
def test_time_ends_training_between_steps(within_a_step: bool) -> None:
    strategy = SimpleNamespace(broadcast=bool)
    loop = SimpleNamespace(_should_accumulate=lambda: within_a_step)
    trainer: Any = SimpleNamespace(should_stop=False, fit_loop=loop, strategy=strategy)
    timer = StepTimer({"seconds": 0})
    timer.on_train_start(trainer, trainer)
    timer.on_train_batch_end(trainer)
    assert trainer.should_stop == (not within_a_step)


def test_a_moved_run_knows_its_best_score(tmp_path: Path) -> None:
    state = {
        "monitor": "val/loss",
        "best_model_score": torch.tensor(1.5),
        "best_model_path": "/elsewhere/checkpoints/best.ckpt",
        "current_score": torch.tensor(1.5),
        "dirpath": "/elsewhere/checkpoints",
        "best_k_models": {"/elsewhere/checkpoints/best.ckpt": torch.tensor(1.5)},
        "kth_best_model_path": "/elsewhere/checkpoints/best.ckpt",
        "kth_value": torch.tensor(1.5),
        "last_model_path": "",
    }
    kept = BestCheckpoint(dirpath=tmp_path, filename="best", monitor="val/loss")
    kept.load_state_dict(state)
    assert kept.best_model_score == 1.5
    assert kept.best_model_path == str(tmp_path / "best.ckpt")
    assert list(kept.best_k_models) == [kept.best_model_path]


@pytest.mark.parametrize(("mode", "worst"), [("min", math.inf), ("max", -math.inf)])
def test_a_score_that_is_no_number_is_the_worst(tmp_path: Path, mode: Any, worst: float) -> None:
    WholeCheckpointIO().save_checkpoint({"evaluation": {"val/f1": math.nan}}, tmp_path / "best.ckpt")
    kept = BestCheckpoint(dirpath=tmp_path, filename="best", monitor="val/f1", mode=mode)
    kept.load_state_dict({"best_model_score": None, "best_model_path": "", "dirpath": str(tmp_path)})
    assert kept.best_model_score == worst


@pytest.mark.parametrize("known", [1.5, None])
def test_a_best_checkpoint_saved_later_than_the_last_counts_for_itself(tmp_path: Path, known: float | None) -> None:
    """As by the validation after the last step, of which last.ckpt knows nothing."""
    WholeCheckpointIO().save_checkpoint({"evaluation": {"val/loss": 1.25}}, tmp_path / "best.ckpt")
    score = None if known is None else torch.tensor(known)
    path = "/elsewhere/checkpoints/best.ckpt" if known else ""
    state = {"best_model_score": score, "best_model_path": path, "dirpath": "/elsewhere/checkpoints"}
    kept = BestCheckpoint(dirpath=tmp_path, filename="best", monitor="val/loss")
    kept.load_state_dict(state)
    assert kept.best_model_score == 1.25
    assert kept.best_k_models == {str(tmp_path / "best.ckpt"): torch.tensor(1.25)}
    assert kept.kth_best_model_path == kept.best_model_path == str(tmp_path / "best.ckpt")
