"""Checkpoints to go on from."""

import math
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint, Timer

from domaintune.callbacks.stopping import StopOnSignal
from domaintune.callbacks.throughput import Throughput
from domaintune.files.writing import is_whole

VALIDATIONS = 10  # of a run whose epochs are too short for theirs


class BestCheckpoint(ModelCheckpoint):
    """Lightning's, of one file, best.ckpt, whose score counts wherever the run's folder lies now.

    The file may have been saved after the checkpoint from which the run resumes: by the validation after the last step,
    or before a kill. So its score is read from itself.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        file, score = Path(str(self.dirpath)) / "best.ckpt", state_dict["best_model_score"]
        if is_whole(file):
            kept = torch.load(file, weights_only=True, map_location="cpu", mmap=True)
            if "evaluation" in kept:  # earlier versions did not keep it
                worst = math.inf if self.mode == "min" else -math.inf  # as Lightning takes what is no number
                score = torch.tensor(kept["evaluation"][self.monitor]).nan_to_num(worst, math.inf, -math.inf)
        if score is not None:
            here = {"best_model_path": str(file), "kth_best_model_path": str(file), "dirpath": self.dirpath}
            state_dict = {**state_dict, **here, "best_model_score": score, "best_k_models": {str(file): score}}
        super().load_state_dict(state_dict)


class LastCheckpoint(Checkpoint):
    """Saves everything to go on from: now and then, when a signal asks for it, and as training ends.

    Only between optimizer steps, and after a validation that is due there. In the middle of an accumulation window the
    gradients so far are in no checkpoint: going on from there would take a step over the rest of the window alone.
    Saved before a validation, the checkpoint would not know its outcome, and a run that goes on from there would not
    make up for it: it comes after all other callbacks, best.ckpt among them. Saved after the epoch of the last step,
    it could not be gone on from in the middle of that epoch.

    Args:
        file: where to.
        every_steps, every_minutes: how often; None never.
        signals: where to ask for signals.
    """

    def __init__(self, file: Path, every_steps: int | None, every_minutes: float | None, signals: StopOnSignal) -> None:
        self.file, self.signals = file, signals
        self.every_steps = every_steps
        self.every_seconds = float("inf") if every_minutes is None else 60 * every_minutes
        self._saved_at = time.monotonic()
        self._validation_is_due = self._stopped_early = False

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        time_is_over = any(isinstance(timer, Timer) and timer.time_remaining() <= 0 for timer in trainer.callbacks)
        checkpoint["stopped_early"] = trainer.should_stop and not time_is_over

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self._stopped_early = checkpoint["stopped_early"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.should_stop = trainer.should_stop or self._stopped_early
        batches, share = trainer.num_training_batches, trainer.val_check_interval
        trainer.val_check_batch = between_steps(trainer.val_check_batch, trainer.accumulate_grad_batches, batches)
        if trainer.check_val_every_n_epoch is None:
            _validate_between_steps(trainer)
        if isinstance(share, float) and share * batches < 1:  # an epoch is too short for it
            epochs = trainer.estimated_stepping_batches / math.ceil(batches / trainer.accumulate_grad_batches)
            trainer.val_check_batch = batches
            trainer.check_val_every_n_epoch = max(1, int(epochs / VALIDATIONS)) if math.isfinite(epochs) else 1
        self._saved_at = time.monotonic()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loop = trainer.fit_loop
        self._validation_is_due = False
        if loop._should_accumulate():
            return
        self._validation_is_due = loop.epoch_loop._should_check_val_fx(loop._data_fetcher)
        if not self._validation_is_due:
            self._between_steps(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._validation_is_due and trainer.state.fn == "fit":
            self._between_steps(trainer)

    def _between_steps(self, trainer: L.Trainer) -> None:
        told, time_to_save = _any_rank(
            trainer, self.signals.received is not None, time.monotonic() - self._saved_at >= self.every_seconds
        )
        step_to_save = self.every_steps is not None and trainer.global_step % self.every_steps == 0
        over = _is_over(trainer)
        if told or over:
            log_last_step(trainer)
        if told or time_to_save or step_to_save or over:
            trainer.save_checkpoint(self.file)
            self._saved_at = time.monotonic()
        if told:
            self.signals.leave(trainer)


def log_last_step(trainer: L.Trainer) -> None:
    """Logs the step that has just been made, though its turn may not have come."""
    for callback in trainer.callbacks:
        if isinstance(callback, Throughput):
            callback.on_last_step(trainer, trainer.lightning_module)
    task: Any = trainer.lightning_module
    task.log_last_step()


def between_steps(every: float, accumulate: int, batches: float) -> float:
    """After how many micro-batches to validate, so that it is never in the middle of an optimizer step.

    Args:
        every: as it is set.
        accumulate: micro-batches of a step; the last step of an epoch may have fewer.
        batches: of an epoch.
    """
    return every if every >= batches else min(batches, max(1, round(every / accumulate)) * accumulate)


def _validate_between_steps(trainer: L.Trainer) -> None:
    """Has an interval that is counted across epochs end with the optimizer step in which it is over.

    The last step of an epoch may have fewer micro-batches, so that from the second epoch on no number of batches always
    falls between two steps.
    """
    loop: Any = trainer.fit_loop.epoch_loop
    usual = loop._should_check_val_fx

    def is_due(fetcher: Any) -> bool:
        if trainer.should_stop or trainer.val_check_batch == float("inf"):
            return bool(usual(fetcher))
        if not loop._should_check_val_epoch() or loop._should_accumulate():
            return False
        done = loop.total_batch_idx + 1
        of_step = loop.batch_idx % trainer.accumulate_grad_batches + 1
        return bool(done // trainer.val_check_batch > (done - of_step) // trainer.val_check_batch)

    loop._should_check_val_fx = is_due


def _any_rank(trainer: L.Trainer, *flags: bool) -> list[bool]:
    """Whether a flag is set on any rank. Lightning asks all ranks for the like before each batch."""
    if trainer.world_size == 1:
        return list(flags)
    counts: Any = torch.tensor(flags, dtype=torch.int32, device=trainer.strategy.root_device)
    return [count > 0 for count in trainer.strategy.reduce(counts, reduce_op="sum").tolist()]


def _is_over(trainer: L.Trainer) -> bool:
    """Whether training ends with the step that has just been made."""
    loop: Any = trainer.fit_loop
    last_epoch = loop.max_epochs not in (None, -1) and loop.epoch_progress.current.processed + 1 >= loop.max_epochs
    last_step = loop.max_steps != -1 and trainer.global_step >= loop.max_steps
    return trainer.should_stop or last_step or (last_epoch and loop.epoch_loop._num_ready_batches_reached())
