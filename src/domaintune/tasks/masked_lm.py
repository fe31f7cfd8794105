"""Predict masked tokens: fits an encoder to a domain before it learns labels of it."""

import torch
import torch.nn.functional as F

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
        """The sum of the losses in nats, the number of masked tokens, and their logits (M, V)."""
        inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
        logits = logits_at(self.model, inputs, batch["places"]).float()
        loss = F.cross_entropy(logits, batch["targets"], reduction="sum")
        return loss, loss.new_full((), batch["labelled"]), logits

    def training_step(self, batch: ExampleBatch, batch_idx: int) -> torch.Tensor:
        loss, labels, _ = self(batch)
        return self.step_loss(loss, labels, batch["tokens"])

    def begin_evaluation(self, side: str) -> None:
        self._sums = self.zeros(3)

    def validation_step(self, batch: ExampleBatch, batch_idx: int) -> None:
        loss, labels, logits = self(batch)
        right = (logits.argmax(-1) == batch["targets"]).sum()
        self._sums += torch.stack([value.to(self._sums) for value in (loss, labels, right)])

    def end_evaluation(self, side: str) -> dict[str, float]:
        loss, labels, right = self._sums.tolist()
        mean = loss / labels if labels else float("nan")
        return {"loss": mean, "perplexity": perplexity(mean), "accuracy": right / labels if labels else float("nan")}
