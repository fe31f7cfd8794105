"""How fast training is: predicted tokens a second, and what that is of what the device could do."""

import time
from typing import Any

import lightning as L

from domaintune.kernels.hardware import Peak, peak
from domaintune.kernels.memory import peak_memory_gb
from domaintune.tasks.metrics import flops_per_token


class Throughput(L.Callback):
    """Logs figures of the time between two logging steps, without that of validation and of writing checkpoints.

    - `train/tokens_per_second`: predicted tokens, of all devices.
    - `train/mfu`: model FLOPs utilization (Chowdhery et al., "PaLM", 2022), the arithmetic that those tokens need over
      what the devices could do; absent where that isn't known.
    - `train/data_wait`: the share of the time that was spent waiting for batches.
    - `train/peak_memory_gb`: the most memory held so far.

    Attributes:
        flops_per_token: floating-point operations that training on a predicted token needs.
        peak: of one device; measured on a CPU as training starts, else from a table.
        total_seconds, total_tokens: of training, over all processes of the run.
    """

    def __init__(self) -> None:
        self._since = self._waited = self._saved = 0.0
        self._tokens = 0
        self.peak: Peak | None = None
        self.flops_per_token = 0.0
        self.total_seconds = 0.0
        self.total_tokens = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        data: Any = trainer.datamodule
        self.peak = peak(pl_module.device.type, str(trainer.precision))
        windows = data.datasets["train"]
        # What is read without being predicted, as a prompt, needs arithmetic too.
        processed = windows.lengths.sum() / windows.trained_tokens
        self.flops_per_token = float(flops_per_token(pl_module.model, windows.lengths) * processed)
        shape = pl_module.model.config
        if shape.is_encoder_decoder or hasattr(shape, "num_hidden_groups"):
            self.peak = None  # a source's and a target's tokens, or layers that share weights, need another count
        self._start(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        stepped = not trainer.fit_loop._should_accumulate()
        if stepped and trainer.global_step % trainer.log_every_n_steps == 0:
            self._stop(trainer, pl_module)
            self._start(trainer, pl_module)

    def on_last_step(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Called where training ends with the latest step, or is interrupted after it."""
        self._stop(trainer, pl_module)
        self._start(trainer, pl_module)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "fit":
            self._stop(trainer, pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "fit":
            self._start(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._stop(trainer, pl_module, log=False)

    def state_dict(self) -> dict[str, Any]:
        return {"total_seconds": self.total_seconds, "total_tokens": self.total_tokens}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.total_seconds, self.total_tokens = state_dict["total_seconds"], state_dict["total_tokens"]

    @property
    def tokens_per_second(self) -> float | None:
        """Of the whole run so far; None before the first step."""
        return self.total_tokens / self.total_seconds if self.total_seconds else None

    def mfu(self, tokens_per_second: float, devices: int) -> float | None:
        return tokens_per_second * self.flops_per_token / (self.peak.flops * devices) if self.peak else None

    def _start(self, trainer: L.Trainer, task: Any) -> None:
        self._since, self._tokens = time.perf_counter(), int(task.tokens_trained)
        self._waited, self._saved = waited(trainer), saved(trainer)

    def _stop(self, trainer: L.Trainer, task: Any, log: bool = True) -> None:
        tokens = int(task.tokens_trained) - self._tokens  # waits for the device: the time is taken after it
        seconds = time.perf_counter() - self._since - (saved(trainer) - self._saved)
        self.total_seconds += seconds
        self.total_tokens += tokens
        if not (log and tokens):
            return
        figures = {
            "train/tokens_per_second": tokens / seconds,
            "train/data_wait": (waited(trainer) - self._waited) / seconds,
            "train/peak_memory_gb": peak_memory_gb(task.device),
            "train/mfu": self.mfu(tokens / seconds, trainer.world_size),
        }
        task.log_step({name: figure for name, figure in figures.items() if figure is not None}, trainer.global_step)


def waited(trainer: L.Trainer) -> float:
    """Seconds that training has waited for its loader since that was made."""
    return float(getattr(trainer.train_dataloader, "waited", 0.0))


def saved(trainer: L.Trainer) -> float:
    """Seconds that saving checkpoints has taken."""
    return float(getattr(trainer.strategy.checkpoint_io, "seconds", 0.0))
