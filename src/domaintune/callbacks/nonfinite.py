"""Losses and gradients that are not finite: told with the documents that they come from."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch

from domaintune.errors import RunError
from domaintune.runs.folder import say

NAMED_DOCUMENTS = 20


@dataclass(frozen=True)
class Step:
    """An optimizer step, before it is known whether its numbers are finite."""

    number: int  # counted from 1
    lr: float
    loss: torch.Tensor
    grad_norm: torch.Tensor
    finite: Callable[[], bool]
    micro_losses: torch.Tensor  # (micro-batches,) of this rank
    epoch: int
    first_batch: int  # of the epoch, on each rank


class NonFinite(L.Callback):
    """Stops the run, or counts the step and goes on. The task has left the weights as they were in either case.

    On a GPU a step is looked at after the next one is under way, so that the program never waits for it.

    Args:
        on_nonfinite: `stop` or `skip`.
        max_skipped: more skipped steps than these stop the run, too.

    Raises:
        RunError: with the step, its learning rate, loss, gradient norm and documents.
    """

    def __init__(self, on_nonfinite: str, max_skipped: int) -> None:
        self.on_nonfinite, self.max_skipped = on_nonfinite, max_skipped
        self.skipped = 0
        self._unjudged: tuple[L.Trainer, Step] | None = None

    def state_dict(self) -> dict[str, Any]:
        self._judge_last()  # a checkpoint holds no step that was not looked at
        return {"skipped": self.skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.skipped = state_dict["skipped"]

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.fit_loop._should_accumulate():
            return
        task: Any = pl_module
        done = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        step = Step(
            number=trainer.global_step,
            **{**task.latest_step, "finite": on_its_way(task.latest_step["finite"])},
            epoch=trainer.current_epoch,
            first_batch=done - len(task.latest_step["micro_losses"]),
        )
        self._judge_last()
        self._unjudged = trainer, step
        if pl_module.device.type != "cuda":
            self._judge_last()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._judge_last()

    def _judge_last(self) -> None:
        if self._unjudged is not None:
            unjudged, self._unjudged = self._unjudged, None
            self._judge(*unjudged)

    def _judge(self, trainer: L.Trainer, step: Step) -> None:
        if step.finite():
            return
        self.skipped += 1
        what = (
            f"step {step.number}: not finite: loss {float(step.loss):.4g}, gradient norm {float(step.grad_norm):.4g}, "
            f"lr {step.lr:.3g}; {documents_of(trainer, step)}"
        )
        if self.on_nonfinite == "skip" and self.skipped <= self.max_skipped:
            say(f"{what}; skipped ({self.skipped} of at most {self.max_skipped})")
            return
        advice = (
            f"run.max_skipped={self.max_skipped} are skipped already"
            if self.on_nonfinite == "skip"
            else "run.on_nonfinite=skip leaves such steps out; a lower optim.lr may avoid them"
        )
        raise RunError(f"{what}. The weights are those from before it. {advice}")


def on_its_way(flag: torch.Tensor) -> Callable[[], bool]:
    """Sends a flag from the device, which goes on; the answer waits for its step and for nothing after that."""
    if not flag.is_cuda:
        return lambda: bool(flag)
    here = torch.empty(flag.shape, dtype=flag.dtype, pin_memory=True)
    here.copy_(flag, non_blocking=True)
    sent = torch.cuda.Event()
    sent.record()

    def arrived() -> bool:
        sent.synchronize()
        return bool(here)

    return arrived


def documents_of(trainer: L.Trainer, step: Step) -> str:
    """The documents of a step's batches, on all ranks: of those with a bad loss, if any has one."""
    data: Any = trainer.datamodule
    bad = ~trainer.strategy.all_gather(step.micro_losses).reshape(trainer.world_size, -1).isfinite()
    places = (bad if bad.any() else torch.ones_like(bad)).nonzero().tolist()
    found = [
        document
        for rank, micro in places
        for document in data.documents_of("train", step.epoch, (step.first_batch + micro) * trainer.world_size + rank)
    ]
    more = f" and {len(found) - NAMED_DOCUMENTS} more" if len(found) > NAMED_DOCUMENTS else ""
    return f"documents of the batch: {', '.join(found[:NAMED_DOCUMENTS])}{more}"
