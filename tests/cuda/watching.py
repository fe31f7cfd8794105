"""What tests of whole runs look at."""

import json
import signal
from pathlib import Path
from typing import Any

import lightning as L
import torch

KILLED = -signal.SIGKILL


def result_of(folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return result


class Watching(L.Callback):
    """The loss of each step, kept on the device."""

    def __init__(self) -> None:
        self.losses: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.losses.append(pl_module.latest_step["loss"].detach().clone())
