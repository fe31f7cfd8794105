"""The isolation probe where a model trains."""

from typing import Any

import lightning as L
import torch

from domaintune.kernels.attention import check_isolation
from domaintune.models.sharding import is_sharded


class IsolationProbe(L.Callback):
    """Checks once that no document of a packed row sees another, on the device and in the precision that train.

    Kernels of attention differ with both, so what a CPU does in fp32 says little about them. Split weights can't be
    probed: their model runs as a whole only.

    Args:
        inputs: of the model, a row of several documents.

    Raises:
        UsageError: one document sees another.
    """

    def __init__(self, inputs: dict[str, torch.Tensor]) -> None:
        self.inputs = inputs
        self.probed = False

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._probe(trainer, pl_module)

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._probe(trainer, pl_module)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._probe(trainer, pl_module)  # of a run that resumes nothing is validated before

    def _probe(self, trainer: L.Trainer, task: Any) -> None:
        if self.probed or is_sharded(task):
            return
        with trainer.precision_plugin.forward_context():
            check_isolation(task.model, {name: value.to(task.device) for name, value in self.inputs.items()})
        self.probed = True
