"""torch.compile: whether it can work here, what it costs, and from how many steps on it pays."""

import math
import time
from typing import Any

import lightning as L
import torch

from domaintune.errors import UsageError
from domaintune.runs.report import console


def check_compiler(device: torch.device) -> None:
    """Compiles a small function for a device.

    Raises:
        UsageError: that doesn't work, as where a CPU has no C++ compiler.
    """
    try:
        torch.compile(lambda x: x.sin() + 1, dynamic=False)(torch.ones(64, device=device))
    except Exception as error:  # of torch's many kinds: no compiler, no headers, no Triton, ...
        reason = str(error).strip().splitlines()[0]
        needs = "Triton" if device.type == "cuda" else "a C++ compiler (g++ or clang++; CXX names another)"
        raise UsageError(f"model.compile=true needs {needs}, and torch.compile fails: {reason}") from error


class Compilation(L.Callback):
    """Compiles a task's model as training starts, on the first batch, and compares it with the one that isn't compiled.

    Done before the first step, so that neither the steps nor the random numbers are others for it.

    Attributes:
        report: `seconds` of compiling; `step_seconds` and `plain_step_seconds`, forward and backward of a batch; and
            `pays_from_step`, of optimizer steps, None where it is no faster.
    """

    def __init__(self) -> None:
        self.report: dict[str, Any] | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        task: Any = pl_module
        data: Any = trainer.datamodule
        batch = data.full_batch()
        if batch is None:
            _say(trainer, "not compiled: the training data doesn't fill a batch")
            return
        batch = task.transfer_batch_to_device(batch, task.device, 0)
        _say(trainer, "compiling the model")
        devices = [task.device] if task.device.type == "cuda" else []
        with torch.random.fork_rng(devices), trainer.precision_plugin.train_step_context():
            compiled, task.compiled = task.compiled, None
            _seconds_of_step(task, batch)  # the first of a process is slow
            plain = _seconds_of_step(task, batch)
            task.compiled = compiled
            first = _seconds_of_step(task, batch)
            step = _seconds_of_step(task, batch)
        batches = (first - step) / (plain - step) if plain > step else math.inf
        pays = math.ceil(batches / trainer.accumulate_grad_batches) if plain > step else None
        self.report = {
            "seconds": first - step,
            "step_seconds": step,
            "plain_step_seconds": plain,
            "pays_from_step": pays,
        }
        _say(
            trainer,
            f"compiled in {first - step:.0f} s: a batch takes {step:.3g} s instead of {plain:.3g} s; "
            + (f"pays from step {pays:,} on" if pays else "it doesn't pay"),
        )


def _seconds_of_step(task: Any, batch: Any) -> float:
    """Forward and backward of a batch; gradients are thrown away."""
    started = time.perf_counter()
    loss, _ = task(batch)
    weights = [weight for weight in task.parameters() if weight.requires_grad]
    gradients = torch.autograd.grad(loss, weights, allow_unused=True)
    float(next(gradient for gradient in gradients if gradient is not None).flatten()[0])  # waits for the device
    return time.perf_counter() - started


def _say(trainer: L.Trainer, text: str) -> None:
    if trainer.is_global_zero:
        console.print(text)
