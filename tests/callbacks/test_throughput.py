"""What counts as training time."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from domaintune.callbacks import compilation
from domaintune.callbacks.compilation import Compilation
from domaintune.callbacks.throughput import Throughput
from domaintune.config.composing import default_config
from domaintune.runs.checkpoints import WholeCheckpointIO
from domaintune.runs.folder import RunFolder
from domaintune.trainers import build_trainer


def test_saving_is_no_training_time(tmp_path: Path) -> None:
    saving, counting = WholeCheckpointIO(), Throughput()
    trainer: Any = SimpleNamespace(strategy=SimpleNamespace(checkpoint_io=saving), train_dataloader=None)
    task: Any = SimpleNamespace(tokens_trained=0)
    counting._start(trainer, task)
    began = time.perf_counter()
    saving.save_checkpoint({"weights": torch.zeros(1 << 20)}, tmp_path / "last.ckpt")
    took = time.perf_counter() - began
    counting._stop(trainer, task)
    assert 0 < saving.seconds <= took
    assert counting.total_seconds < took / 2


def test_compiling_comes_before_the_clocks_start(tmp_path: Path) -> None:
    config = default_config("name=compiled", "trainer=cpu", "model.compile=true", "trainer.max_time=00:01:00:00")
    trainer: Any = build_trainer(config, RunFolder(tmp_path / "run"))
    names = [type(callback).__name__ for callback in trainer.callbacks]
    assert names.index("Compilation") < min(names.index("Throughput"), names.index("RunProgress"))
    assert names.index("StepTimer") < names.index("Compilation"), "trainer.max_time is a time for all of it"


@pytest.mark.parametrize(("accumulate", "steps"), [(1, 11), (4, 3)])
def test_compiling_pays_after_so_many_optimizer_steps(
    accumulate: int, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter([9.0, 2.0, 12.0, 1.0])  # warming up, as it is, compiling, compiled: 11 s for 1 s a batch
    monkeypatch.setattr(compilation, "_seconds_of_step", lambda *_: next(seconds))
    context = SimpleNamespace(train_step_context=lambda: torch.no_grad())
    data = SimpleNamespace(full_batch=dict)
    trainer: Any = SimpleNamespace(
        accumulate_grad_batches=accumulate, datamodule=data, precision_plugin=context, is_global_zero=False
    )
    task: Any = SimpleNamespace(
        transfer_batch_to_device=lambda batch, *_: batch, device=torch.device("cpu"), compiled=None
    )
    compiling = Compilation()
    compiling.on_train_start(trainer, task)
    assert compiling.report is not None
    assert compiling.report["pays_from_step"] == steps
