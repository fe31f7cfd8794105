"""Find entities: a tag for each word, measured by whole entities."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import distributed
from transformers import AutoModelForTokenClassification, PreTrainedModel

from domaintune.config.schema import Config, OptimConfig, SchedulerConfig
from domaintune.data.batching import IGNORED
from domaintune.data.encoder import CONTEXT
from domaintune.data.examples import ExampleBatch, WordTags
from domaintune.data.formats.entities import cut_at_words, encode_words
from domaintune.data.inputs import Input
from domaintune.data.labelling import Labels
from domaintune.models.heads import Head
from domaintune.tasks.base import ExampleTask, names_in_config
from domaintune.tasks.metrics import count_entities, entities_of, entity_metrics
from domaintune.tasks.predicting import Predictor, Row, rounded


class TokenClassification(ExampleTask):
    """Wraps any `AutoModelForTokenClassification`.

    The loss is the mean over words of the cross entropy at their first tokens. Logs `loss`, `precision`, `recall` and
    `f1` over all entities of all sentences, as seqeval counts them, and `f1/KIND` of each kind. A sentence that was cut
    is put together again before it is measured.

    Args:
        model: its config says what the tags are called.
    """

    head = Head(AutoModelForTokenClassification, "a token classifier", is_new=True, peft_type="TOKEN_CLS")

    @classmethod
    def make_examples(cls, *given: Any, config: Config, labels: Labels | None, tokenizer: Any, side: str) -> WordTags:
        assert labels is not None
        return WordTags(*given, tags=labels.of, words=labels.words)

    @classmethod
    def label_settings(cls, labels: Labels | None) -> dict[str, Any]:
        assert labels is not None
        return names_in_config(labels)

    @classmethod
    def predict(cls, predictor: Predictor, rows: list[Input]) -> Iterator[Row]:
        ids, numbers, lengths = encode_words([list(row.words) for row in rows], predictor.encoder)
        specials, ends = predictor.specials, np.cumsum(lengths)
        windows = [
            (sentence, end - length + first, end - length + stop)
            for sentence, (end, length) in enumerate(zip(ends.tolist(), lengths.tolist(), strict=True))
            for first, stop in cut_at_words(numbers[end - length : end], predictor.room)
        ]
        shape: Any = predictor.model.config
        logits = predictor.logits(
            [specials.around(ids[first:stop]) for _, first, stop in windows],
            lambda batch: predictor.model(**batch).logits,
        )
        given: list[list[tuple[str, float | None]]] = [[("O", None)] * len(row.words) for row in rows]
        for (sentence, first, stop), found in zip(windows, logits, strict=True):
            chances = found.softmax(-1)[specials.before.size :]
            for place, word in enumerate(numbers[first:stop].tolist()):
                if word != CONTEXT:
                    tag = shape.id2label[int(chances[place].argmax())]
                    given[sentence][word] = (tag, rounded(chances[place].max()))
        for row, of_words in zip(rows, given, strict=True):
            yield _tagged(row, [tag for tag, _ in of_words], [chance for _, chance in of_words])

    def __init__(self, model: PreTrainedModel, optim: OptimConfig, scheduler: SchedulerConfig) -> None:
        super().__init__(model, optim, scheduler)
        shape: Any = model.config
        self.tags = [str(shape.id2label[number]) for number in range(shape.num_labels)]
        self._windows: list[int] = []  # that were seen
        self._guesses: list[torch.Tensor] = []  # the tags of their words, on the device until the end

    def forward(self, batch: ExampleBatch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The sum of the words' losses, their number, and the logits (B, T, K)."""
        logits = self.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.float()
        labels = batch["labels"]
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum")
        return loss, loss.new_full((), batch["labelled"]), logits

    def begin_evaluation(self, side: str) -> None:
        self._sums, self._windows, self._guesses = self.zeros(2), [], []

    def validation_step(self, batch: ExampleBatch, batch_idx: int) -> None:
        loss, words, logits = self(batch)
        self._sums += torch.stack([value.to(self._sums) for value in (loss, words)])
        self._windows += batch["windows"]
        self._guesses.append(logits.argmax(-1).flatten().index_select(0, batch["places"]))

    def end_evaluation(self, side: str) -> dict[str, float]:
        data: Any = self.trainer.datamodule
        dataset = data.datasets[side]
        counts = count_entities(self._sentences(dataset, self._gathered(dataset)))
        loss, words = self._sums.tolist()
        kinds = sorted({tag.split("-", 1)[-1] for tag in self.tags if tag != "O"})
        return entity_metrics(loss, words, counts, kinds)

    def _gathered(self, dataset: WordTags) -> dict[int, list[int]]:
        """{window: tags of its words} as all devices guess them."""
        guesses = torch.cat([torch.zeros(0, dtype=torch.int64), *(part.cpu() for part in self._guesses)])
        of_each = guesses.split(dataset.words_in[self._windows].tolist())
        own = {window: tags.tolist() for window, tags in zip(self._windows, of_each, strict=True)}
        if self.trainer.world_size == 1:
            return own
        parts: list[Any] = [None] * self.trainer.world_size
        distributed.all_gather_object(parts, own)
        return {window: guess for part in parts for window, guess in part.items()}

    def _sentences(self, dataset: WordTags, guesses: dict[int, list[int]]) -> list[tuple[list[str], list[str]]]:
        """(true, given) tags of each sentence of which every window was seen; a word without a token is given O."""
        windows: dict[int, list[int]] = {}
        for window, document in enumerate(dataset.of.tolist()):
            windows.setdefault(document, []).append(window)
        sentences = []
        for of_sentence in windows.values():
            if not all(window in guesses for window in of_sentence):
                continue
            true = [self.tags[tag] for tag in dataset.tags_of(of_sentence[0]).tolist()]
            given = ["O"] * len(true)
            for window in of_sentence:
                words = dataset.words_of(window)
                for word, tag in zip(words[words != CONTEXT].tolist(), guesses[window], strict=True):
                    given[word] = self.tags[tag]
            sentences.append((true, given))
        return sentences


def _tagged(row: Input, tags: list[str], chances: list[float | None]) -> Row:
    """The words with their tags, and the entities that these make up: `first` and `last` are numbers of words."""
    entities = [
        {"kind": kind, "text": " ".join(row.words[first : last + 1]), "first": first, "last": last}
        for kind, first, last in sorted(entities_of(tags), key=lambda entity: entity[1])
    ]
    return {"entities": entities, "tokens": list(row.words), "tags": tags, "probabilities": chances}
