"""Label whole texts: one label each, or any number of them."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from domaintune.config.schema import Config, OptimConfig, SchedulerConfig
from domaintune.data.batching import IGNORED
from domaintune.data.examples import ExampleBatch, TextLabels
from domaintune.data.inputs import Input
from domaintune.data.labelling import Labels
from domaintune.models.heads import Head
from domaintune.runs.folder import optional
from domaintune.tasks.base import ExampleTask, names_in_config
from domaintune.tasks.drawing import add_matrix
from domaintune.tasks.metrics import classification_metrics
from domaintune.tasks.predicting import Predictor, Row, rounded

HITS = ("found", "missed", "wrongly given")  # of a label, where texts may have several


class SequenceClassification(ExampleTask):
    """Wraps any `AutoModelForSequenceClassification`.

    The loss is the mean over texts of the cross entropy, of several labels a text of the mean over labels of their
    binary cross entropy. With class weights it is sum(weight * loss) / sum(weight), as torch's is; of several labels a
    text they weigh the texts that have a label. Logs `loss`,
    `accuracy` (every label of a text right), `f1` (the mean over classes) and each class's `f1/NAME`, and draws which
    classes are taken for which.

    Args:
        model: its config says how many labels there are, what they are called, and whether a text has several.
        weights: (K,) of the classes; None weighs all alike.
    """

    head = Head(AutoModelForSequenceClassification, "a sequence classifier", is_new=True, peft_type="SEQ_CLS")
    class_weights: torch.Tensor | None

    @classmethod
    def make_examples(cls, *given: Any, config: Config, labels: Labels | None, tokenizer: Any, side: str) -> TextLabels:
        assert labels is not None
        return TextLabels(*given, label_of=labels.of)

    @classmethod
    def label_settings(cls, labels: Labels | None) -> dict[str, Any]:
        assert labels is not None
        several = "multi_label_classification" if labels.several else "single_label_classification"
        return {**names_in_config(labels), "problem_type": several}

    @classmethod
    def make(
        cls, config: Config, model: PreTrainedModel, trained_on: tuple[dict[str, int], int] | None
    ) -> "SequenceClassification":
        weights = None
        if config.task.class_weights == "balanced":
            assert trained_on is not None
            several = model.config.problem_type == "multi_label_classification"
            weights = balanced_weights(trained_on[0], several, trained_on[1])
        return cls(model, config.optim, config.scheduler, weights)

    @classmethod
    def predict(cls, predictor: Predictor, rows: list[Input]) -> Iterator[Row]:
        task = cls(predictor.model, predictor.config.optim, predictor.config.scheduler).eval()
        for logits in predictor.logits(predictor.encode([str(row.text) for row in rows]), task.logits):
            chances = logits.sigmoid() if task.several else logits.softmax(0)
            by_name = {name: rounded(chance) for name, chance in zip(task.names, chances, strict=True)}
            if task.several:
                labels = [name for name, logit in zip(task.names, logits, strict=True) if logit > 0]
                yield {"labels": labels, "probabilities": by_name}
            else:
                yield {"label": task.names[int(logits.argmax())], "probabilities": by_name}

    def __init__(
        self,
        model: PreTrainedModel,
        optim: OptimConfig,
        scheduler: SchedulerConfig,
        weights: torch.Tensor | None = None,
    ) -> None:
        super().__init__(model, optim, scheduler)
        shape: Any = model.config
        self.names = [str(shape.id2label[number]) for number in range(shape.num_labels)]
        self.several = shape.problem_type == "multi_label_classification"
        self.register_buffer("class_weights", weights, persistent=False)

    def logits(self, batch: ExampleBatch) -> torch.Tensor:
        """(B, K) in fp32.

        A decoder's are read from the last token that is no padding, known by length: transformers looks for the last
        one that is not the padding token, which for GPT-2 is one that may stand in a text.
        """
        inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
        head = getattr(self.model, "score", None)
        if isinstance(head, nn.Linear):
            states = self.model.base_model(**inputs, use_cache=False).last_hidden_state
            last = batch["attention_mask"].sum(1) - 1
            logits = head(states[torch.arange(len(last), device=last.device), last])
        else:
            logits = self.model(**inputs).logits
        return logits.float()

    def forward(self, batch: ExampleBatch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The sum of the weighted losses, the sum of the weights, and the logits (B, K)."""
        logits, labels = self.logits(batch), batch["labels"]
        if self.several:
            real = (labels != IGNORED).all(1)
            losses = F.binary_cross_entropy_with_logits(
                logits, labels.clamp(0, 1), reduction="none", pos_weight=self.class_weights
            )
            return (losses.mean(1) * real).sum(), real.sum().float(), logits
        loss = F.cross_entropy(logits, labels, self.class_weights, ignore_index=IGNORED, reduction="sum")
        real = labels != IGNORED
        weights = torch.ones_like(logits[0]) if self.class_weights is None else self.class_weights
        return loss, (weights[labels.clamp_min(0)] * real).sum(), logits

    def begin_evaluation(self, side: str) -> None:
        # Row by row: the loss, its weight and how many texts are wholly right; then a table of (K, K) or (K, 3).
        self._sums = self.zeros(1 + len(self.names), max(len(self.names), 3))

    def validation_step(self, batch: ExampleBatch, batch_idx: int) -> None:
        loss, weight, logits = self(batch)
        labels, table = batch["labels"], self._sums[1:]
        if self.several:
            real = (labels != IGNORED).all(1)
            wanted, given = labels[real] == 1, logits[real] > 0
            right = (wanted == given).all(1).sum()
            counts = torch.stack([(wanted & given).sum(0), (wanted & ~given).sum(0), (~wanted & given).sum(0)], dim=1)
            table[:, : len(HITS)] += counts.to(table)
        else:
            real = labels != IGNORED
            wanted, given = labels[real], logits[real].argmax(1)
            right = (wanted == given).sum()
            table.index_put_((wanted, given), table.new_ones(()).expand(len(wanted)), accumulate=True)
        self._sums[0, :3] += torch.stack([value.to(self._sums) for value in (loss, weight, right)])

    def end_evaluation(self, side: str) -> dict[str, float]:
        (loss, weight, right), table = self._sums[0, :3].tolist(), self._sums[1:].cpu().numpy()
        table = table[:, : len(HITS) if self.several else len(self.names)]
        if side == "val":
            with optional("the confusion matrix could not be drawn"):
                add_matrix(self.trainer, "val/confusion", table, self.names, HITS if self.several else self.names)
        return classification_metrics(loss, weight, right, table, self.names, self.several)


def balanced_weights(counts: dict[str, int], several: bool, texts: int) -> torch.Tensor:
    """(K,) weights by which rare classes count as much as frequent ones.

    A class of n of N texts has N / (K * n), as scikit-learn's "balanced"; where texts may have several labels its texts
    have (N - n) / n, so that those with and without it weigh the same. A class without texts has 1, and is none of K.
    """
    found = torch.tensor(list(counts.values()), dtype=torch.float64)
    weights = (texts - found).clamp_min(1) / found if several else texts / ((found > 0).sum() * found)
    return torch.where(found > 0, weights, 1).float()
