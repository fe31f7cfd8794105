"""A finished run's model on new texts: labels with their probabilities, entities, or what it writes."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from domaintune.config.schema import Config
from domaintune.data.cells import is_missing
from domaintune.data.chatting import Chats
from domaintune.data.datamodule import pad_token_id
from domaintune.data.encoder import Encoder, Specials, specials_of
from domaintune.data.encoding import cut_at_words, encode_words
from domaintune.data.inputs import Input
from domaintune.data.left_out import REFUSED
from domaintune.data.tokenizing import CONTEXT
from domaintune.kernels.hardware import prediction_device
from domaintune.models.generation import Sampling, continue_all, encode_prompt, encode_question, fit_prompt
from domaintune.models.loading import load_model, load_tokenizer, tokens_of
from domaintune.models.locating import Checkpoint
from domaintune.tasks.metrics import entities_of
from domaintune.tasks.sequence_classification import SequenceClassification

DIGITS = 7  # of a probability
# {task: the names of what is predicted of a row}
PREDICTED = {
    "sequence_classification": ("label", "labels", "probabilities"),
    "token_classification": ("entities", "tokens", "tags", "probabilities"),
    "seq2seq": ("text",),
    "causal_lm": ("text",),
}
Row = dict[str, Any]
Ids = list[np.ndarray]


@dataclass
class Predictor:
    """A model with all that decides what it is given, as it was in training.

    In fp32, so that neither padding nor the size of a batch changes a probability by more than rounding (1e-6).

    Attributes:
        batch_size: texts at once; those of similar lengths share a batch.
        max_new_tokens: of what is written.
        chat: whether a text is a message to answer, written as the model's chat template has it.
    """

    config: Config
    tokenizer: Any
    model: Any
    batch_size: int
    max_new_tokens: int
    chat: bool = False

    @classmethod
    def of(
        cls, config: Config, checkpoint: Checkpoint, batch_size: int, max_new_tokens: int, chat: bool
    ) -> "Predictor":
        """Loads an exported model of a run with this config; onto the GPU where there is one."""
        task = config.task.name
        exported = replace(config.model, init="pretrained", gradient_checkpointing=False)  # however the run began
        tokenizer = load_tokenizer(checkpoint, task)
        model = load_model(checkpoint, exported, task, torch.float32, seed=0, tokens=tokens_of(tokenizer)).eval()
        model.to(prediction_device())
        return cls(config, tokenizer, model, batch_size, max_new_tokens, chat)

    def __call__(self, inputs: list[Input]) -> list[Row]:
        """A row for each input, in their order; of one that can't be used its place, and why."""
        predict: Callable[[list[Input]], Iterable[Row]] = {
            "sequence_classification": self._labels,
            "token_classification": self._entities,
            "seq2seq": self._answers,
            "causal_lm": self._continuations,
        }[self.config.task.name]
        asked = [row for row in inputs if row.text is not None]
        with torch.no_grad():
            found = iter(list(predict(asked)) if asked else [])
        why = [{"left_out": row.left_out} if row.left_out else {} for row in inputs]
        given = (next(found) if row.text is not None else odd for row, odd in zip(inputs, why, strict=True))
        rows = zip(inputs, given, strict=True)
        return [{"row": row.place, **beside(row.columns, self.config.task.name, new), **new} for row, new in rows]

    @cached_property
    def _specials(self) -> Specials:
        return specials_of(self.tokenizer)

    @cached_property
    def _encoder(self) -> Encoder:
        return Encoder(self.tokenizer)

    def _encoded(self, texts: list[str]) -> Ids:
        """The ids of each text, cut off and with special tokens, as in training."""
        ids, _, lengths = self._encoder.encode(texts)
        specials = self._specials
        room = self.config.data.block_size - len(specials)
        return [specials.around(part[:room]) for part in np.split(ids, np.cumsum(lengths)[:-1])]

    def _logits(self, ids: Ids, forward: Callable[[Any], torch.Tensor]) -> list[torch.Tensor]:
        """What `forward` gives of each row of ids, computed in batches of similar lengths, padded on the right."""
        order = sorted(range(len(ids)), key=lambda place: len(ids[place]))
        found: dict[int, torch.Tensor] = {}
        for first in range(0, len(order), self.batch_size):
            places = order[first : first + self.batch_size]
            rows = [torch.from_numpy(ids[place]) for place in places]
            batch = {
                "input_ids": pad_sequence(rows, batch_first=True, padding_value=pad_token_id(self.tokenizer)),
                "attention_mask": pad_sequence([torch.ones_like(row) for row in rows], batch_first=True),
            }
            logits = forward({name: tensor.to(self.model.device) for name, tensor in batch.items()})
            found |= dict(zip(places, logits.float().cpu(), strict=True))
        return [found[place] for place in range(len(ids))]

    def _labels(self, inputs: list[Input]) -> Iterator[Row]:
        task = SequenceClassification(self.model, self.config.optim, self.config.scheduler).eval()
        for logits in self._logits(self._encoded([str(row.text) for row in inputs]), task.logits):
            chances = logits.sigmoid() if task.several else logits.softmax(0)
            by_name = {name: _rounded(chance) for name, chance in zip(task.names, chances, strict=True)}
            if task.several:
                labels = [name for name, logit in zip(task.names, logits, strict=True) if logit > 0]
                yield {"labels": labels, "probabilities": by_name}
            else:
                yield {"label": task.names[int(logits.argmax())], "probabilities": by_name}

    def _entities(self, inputs: list[Input]) -> Iterator[Row]:
        ids, numbers, lengths = encode_words([list(row.words) for row in inputs], self._encoder)
        specials, ends = self._specials, np.cumsum(lengths)
        room = self.config.data.block_size - len(specials)
        windows = [
            (sentence, end - length + first, end - length + stop)
            for sentence, (end, length) in enumerate(zip(ends.tolist(), lengths.tolist(), strict=True))
            for first, stop in cut_at_words(numbers[end - length : end], room)
        ]
        tags = [self.model.config.id2label[number] for number in range(self.model.config.num_labels)]
        logits = self._logits(
            [specials.around(ids[first:stop]) for _, first, stop in windows], lambda batch: self.model(**batch).logits
        )
        given: list[list[tuple[str, float | None]]] = [[("O", None)] * len(row.words) for row in inputs]
        for (sentence, first, stop), found in zip(windows, logits, strict=True):
            chances = found.softmax(-1)[specials.before.size :]
            for place, word in enumerate(numbers[first:stop].tolist()):
                if word != CONTEXT:
                    given[sentence][word] = (tags[int(chances[place].argmax())], _rounded(chances[place].max()))
        for row, of_words in zip(inputs, given, strict=True):
            yield _tagged(row, [tag for tag, _ in of_words], [chance for _, chance in of_words])

    def _answers(self, inputs: list[Input]) -> list[Row]:
        sources = self._encoded([self.config.data.prefix + str(row.text) for row in inputs])
        return self._written([torch.from_numpy(ids) for ids in sources])

    def _continuations(self, inputs: list[Input]) -> list[Row]:
        prompts, refused = [], {}
        for place, row in enumerate(inputs):
            try:
                prompts.append(fit_prompt(self._asked(row), self.max_new_tokens, self.model))
            except ValueError as error:  # of the chat template
                refused[place] = {"left_out": f"{REFUSED}: {error}"}
        written = iter(self._written(prompts))
        return [refused[place] if place in refused else next(written) for place in range(len(inputs))]

    def _asked(self, row: Input) -> list[int]:
        if row.turns:
            return self._encoder.ids(*Chats(self.tokenizer, self._encoder).asked(list(row.turns)))
        if self.chat:
            return encode_question(self.tokenizer, self._encoder, str(row.text))
        return encode_prompt(self.tokenizer, self._encoder, str(row.text), self.model)

    def _written(self, prompts: list[torch.Tensor]) -> list[Row]:
        likeliest = Sampling(self.max_new_tokens, temperature=0)
        texts = continue_all(self.model, self.tokenizer, prompts, likeliest, self.batch_size)
        return [{"text": text} for text in texts]


def beside(columns: Mapping[str, Any], task_name: str, predicted: Row) -> Row:
    """A row's own columns beside what was predicted of it; one that has the name of a prediction is `input.NAME`.

    The words of a sentence, which a prediction repeats, stand there once.
    """
    taken = ("row", "left_out", *PREDICTED[task_name])
    return {
        f"input.{name}" if name in taken else name: None if is_missing(value) else value
        for name, value in columns.items()
        if not (name == "tokens" and predicted.get(name) == value)
    }


def _rounded(chance: torch.Tensor) -> float:
    return round(float(chance), DIGITS)


def _tagged(row: Input, tags: list[str], chances: list[float | None]) -> Row:
    """The words with their tags, and the entities that these make up: `first` and `last` are numbers of words."""
    entities = [
        {"kind": kind, "text": " ".join(row.words[first : last + 1]), "first": first, "last": last}
        for kind, first, last in sorted(entities_of(tags), key=lambda entity: entity[1])
    ]
    return {"entities": entities, "tokens": list(row.words), "tags": tags, "probabilities": chances}
