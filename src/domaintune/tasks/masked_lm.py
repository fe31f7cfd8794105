"""Predict masked tokens: fits an encoder to a domain before it learns labels of it."""

from typing import Any

import torch
import torch.nn.functional as F
from transformers import AutoModelForMaskedLM, PreTrainedModel

from domaintune.config.schema import Config, OptimConfig, SchedulerConfig
from domaintune.data.examples import ExampleBatch, MaskedTokens
from domaintune.data.labelling import Labels
from domaintune.kernels.linear_cross_entropy import linear_cross_entropy
from domaintune.models.heads import Head
from domaintune.models.loading import handing_on, head_is_linear, logits_at
from domaintune.tasks.base import ExampleTask
from domaintune.tasks.metrics import perplexity


class MaskedLM(ExampleTask):
    """Wraps any `AutoModelForMaskedLM`.

    The loss is the mean over masked tokens (Devlin et al., "BERT", 2019; Gururangan et al., "Don't Stop Pretraining",
    2020). Logs `loss`, `perplexity` = exp(loss), and `accuracy`, how often the likeliest token is the right one.
    Validation masks the same tokens every time, so its losses can be compared.
    """

    head = Head(AutoModelForMaskedLM, "a masked LM", is_new=True, special_token="mask_token")

    @classmethod
    def make_examples(
        cls, *given: Any, config: Config, labels: Labels | None, tokenizer: Any, side: str
    ) -> MaskedTokens:
        return MaskedTokens(
            *given,
            fraction=config.task.mask_fraction,
            mask_id=tokenizer.mask_token_id,
            vocabulary=len(tokenizer),
            # What is validated on is masked alike for every seed.
            seed=config.seed if side == "train" else config.data.split_seed,
        )

    def __init__(self, model: PreTrainedModel, optim: OptimConfig, scheduler: SchedulerConfig) -> None:
        super().__init__(model, optim, scheduler)
        self.head_is_linear = head_is_linear(model)

    def forward(self, batch: ExampleBatch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """The sum of the losses in nats, the number of masked tokens, and their logits (M, V).

        There are no logits in training, where a loss needs none of them whole.
        """
        inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
        logits = None
        if self.training and self.head_is_linear:
            head = self.model.get_output_embeddings()
            with handing_on(head):
                hidden = logits_at(self.model, inputs, batch["places"])
            loss = linear_cross_entropy(hidden, head.weight, batch["targets"], drop=False, bias=head.bias)
        else:
            logits = logits_at(self.model, inputs, batch["places"]).float()
            loss = F.cross_entropy(logits, batch["targets"], reduction="sum")
        return loss, loss.new_full((), batch["labelled"]), logits

    def begin_evaluation(self, side: str) -> None:
        self._sums = self.zeros(3)

    def validation_step(self, batch: ExampleBatch, batch_idx: int) -> None:
        loss, labels, logits = self(batch)
        assert logits is not None
        right = (logits.argmax(-1) == batch["targets"]).sum()
        self._sums += torch.stack([value.to(self._sums) for value in (loss, labels, right)])

    def end_evaluation(self, side: str) -> dict[str, float]:
        loss, labels, right = self._sums.tolist()
        mean = loss / labels if labels else float("nan")
        return {"loss": mean, "perplexity": perplexity(mean), "accuracy": right / labels if labels else float("nan")}
