"""Predict masked tokens: fits an encoder to a domain before it learns labels of it."""

from typing import Any

import torch
import torch.nn.functional as F

from domaintune.data.collating import IGNORED
from domaintune.data.examples import ExampleBatch
from domaintune.metrics import perplexity
from domaintune.models.loading import logits_at
from domaintune.tasks.base import FineTuningTask


class MaskedLM(FineTuningTask):
    """Wraps any `AutoModelForMaskedLM`.

    The loss is the mean over masked tokens (Devlin et al., "BERT", 2019; Gururangan et al., "Don't Stop Pretraining",
    2020). Logs `loss`, `perplexity` = exp(loss), and `accuracy`, how often the likeliest token is the right one.
    Validation masks the same tokens every time, so its losses can be compared.
    """

    def forward(self, batch: ExampleBatch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The sum of the losses in nats, the number of masked tokens, and how many are guessed right: three scalars."""
        labels = batch["labels"].flatten()
        places = (labels != IGNORED).nonzero()[:, 0]
        inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
        logits = logits_at(self.model, inputs, places).float()
        loss = F.cross_entropy(logits, labels[places], reduction="sum")
        right = (logits.detach().argmax(-1) == labels[places]).sum()
        return loss, loss.new_full((), batch["labelled"]), right

    def training_step(self, batch: ExampleBatch, batch_idx: int) -> torch.Tensor:
        loss, labels, _ = self(batch)
        return self.step_loss(loss, labels, batch["tokens"])

    def begin_evaluation(self, side: str) -> None:
        self._sums = self.zeros(3)

    def validation_step(self, batch: ExampleBatch, batch_idx: int) -> None:
        values: Any = self(batch)
        self._sums += torch.stack([value.to(self._sums) for value in values])

    def end_evaluation(self, side: str) -> dict[str, float]:
        loss, labels, right = self._sums.tolist()
        mean = loss / labels if labels else float("nan")
        return {"loss": mean, "perplexity": perplexity(mean), "accuracy": right / labels if labels else float("nan")}
