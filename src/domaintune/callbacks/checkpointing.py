"""Checkpoints to go on from."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint


class StepCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint, saving between optimizer steps only, and after a validation that is due there.

    In the middle of an accumulation window the gradients so far are in no checkpoint: going on from there would take
    a step over the rest of the window alone. Saved before a validation, the checkpoint would not know its outcome, and
    a run that goes on from there would not make up for it.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._waiting: tuple[Any, Any, int] | None = None

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loop = trainer.fit_loop
        if loop._should_accumulate():
            return
        if loop.epoch_loop._should_check_val_fx(loop._data_fetcher):
            self._waiting = (outputs, batch, batch_idx)
        else:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and trainer.state.fn == "fit":
            super().on_train_batch_end(trainer, pl_module, *waiting)
