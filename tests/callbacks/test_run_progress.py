"""The bar of a run on a terminal."""

import io
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console

from domaintune.callbacks import progress
from domaintune.callbacks.progress import RunProgress


class Figures(RunProgress):
    """Notes what stands beside the bar after each hook."""

    def beside(self) -> str:
        assert self.bar is not None
        return str(self.bar.tasks[0].fields["figures"])


@pytest.fixture
def bar(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A bar at step 3 of 10, and the trainer and the task that it shows."""
    monkeypatch.setattr(progress, "LOOK_SECONDS", 0.0)
    shown = Figures()
    shown.console = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=100)
    task = SimpleNamespace(latest_step={"loss": torch.tensor(2.5)})
    trainer = SimpleNamespace(
        global_step=3,
        estimated_stepping_batches=10,
        callback_metrics={"val/loss": torch.tensor(3.25), "train/loss": torch.tensor(9.0)},
        lightning_module=task,
        num_val_batches=[5],
    )
    shown.on_train_start(trainer, task)  # type: ignore[arg-type]
    yield shown, trainer, task
    shown.on_train_end(trainer, task)  # type: ignore[arg-type]


def test_the_latest_loss_stands_beside_the_bar_whether_it_is_logged_or_not(bar: Any) -> None:
    shown, trainer, task = bar
    shown.on_train_batch_end(trainer, task, None, None, 0)
    assert shown.beside() == "loss 2.5  val loss 3.25"
    task.latest_step = {"loss": torch.tensor(2.25)}
    shown.on_train_batch_end(trainer, task, None, None, 1)
    assert shown.beside() == "loss 2.25  val loss 3.25"
    assert "3/10 steps" in " ".join(shown.console.file.getvalue().split())


def test_the_loss_stays_while_validating_and_after_it(bar: Any) -> None:
    shown, trainer, task = bar
    shown.on_validation_batch_end(trainer, task, None, None, 1)
    assert shown.beside() == "loss 2.5  val loss 3.25  validating: 2 of 5 batches"
    trainer.callback_metrics["val/loss"] = torch.tensor(3.0)
    shown.on_validation_end(trainer, task)
    assert shown.beside() == "loss 2.5  val loss 3"


def test_without_a_step_there_is_no_loss(bar: Any) -> None:
    shown, trainer, task = bar
    task.latest_step, trainer.callback_metrics = {}, {}
    shown.on_validation_batch_end(trainer, task, None, None, 0)
    assert shown.beside() == "validating: 1 of 5 batches"
