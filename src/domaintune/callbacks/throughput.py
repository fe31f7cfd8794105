"""Tokens a second while training: predicted tokens only, over the wall time between two logging steps."""

import time
from typing import Any

import lightning as L


class Throughput(L.Callback):
    """Logs `train/tokens_per_second`; validation and checkpoints do not count as training time."""

    def __init__(self) -> None:
        self._since = 0.0
        self._tokens = 0
        self.total_seconds = 0.0  # of training, over all processes of the run
        self.total_tokens = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start(pl_module)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        stepped = not trainer.fit_loop._should_accumulate()
        if stepped and trainer.global_step % trainer.log_every_n_steps == 0:
            self._stop(pl_module)
            self._start(pl_module)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "fit":
            self._stop(pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._start(pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._stop(pl_module, log=False)

    def state_dict(self) -> dict[str, Any]:
        return {"total_seconds": self.total_seconds, "total_tokens": self.total_tokens}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.total_seconds, self.total_tokens = state_dict["total_seconds"], state_dict["total_tokens"]

    def _start(self, task: Any) -> None:
        self._since, self._tokens = time.perf_counter(), int(task.tokens_trained)

    def _stop(self, task: Any, log: bool = True) -> None:
        seconds, tokens = time.perf_counter() - self._since, int(task.tokens_trained) - self._tokens
        self.total_seconds += seconds
        self.total_tokens += tokens
        if log and tokens:
            task.log("train/tokens_per_second", tokens / seconds)
