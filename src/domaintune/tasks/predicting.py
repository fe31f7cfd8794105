"""A finished run's model on new texts: labels with their probabilities, entities, or what it writes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from domaintune.config.schema import Config
from domaintune.data.cells import is_missing
from domaintune.data.datamodule import pad_token_id
from domaintune.data.encoder import Encoder, Specials, specials_of
from domaintune.kernels.hardware import prediction_device
from domaintune.models.generation import Sampling, continue_all
from domaintune.models.heads import Head
from domaintune.models.loading import load_model, load_tokenizer, tokens_of
from domaintune.models.locating import Checkpoint

DIGITS = 7  # of a probability
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
        cls, config: Config, checkpoint: Checkpoint, head: Head, batch_size: int, max_new_tokens: int, chat: bool
    ) -> "Predictor":
        """Loads an exported model of a run with this config; onto the GPU where there is one."""
        exported = replace(config.model, init="pretrained", gradient_checkpointing=False)  # however the run began
        tokenizer = load_tokenizer(checkpoint, head)
        model = load_model(checkpoint, exported, head, torch.float32, seed=0, tokens=tokens_of(tokenizer)).eval()
        model.to(prediction_device())
        return cls(config, tokenizer, model, batch_size, max_new_tokens, chat)

    @cached_property
    def specials(self) -> Specials:
        return specials_of(self.tokenizer)

    @property
    def room(self) -> int:
        """Tokens of a block, special ones not counted."""
        return self.config.data.block_size - len(self.specials)

    @cached_property
    def encoder(self) -> Encoder:
        return Encoder(self.tokenizer)

    def encode(self, texts: list[str]) -> Ids:
        """The ids of each text, cut off and with special tokens, as in training."""
        ids, _, lengths = self.encoder.encode(texts)
        return [self.specials.around(part[: self.room]) for part in np.split(ids, np.cumsum(lengths)[:-1])]

    def logits(self, ids: Ids, forward: Callable[[Any], torch.Tensor]) -> list[torch.Tensor]:
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

    def write(self, prompts: list[torch.Tensor]) -> list[Row]:
        """The likeliest text behind each prompt."""
        likeliest = Sampling(self.max_new_tokens, temperature=0)
        texts = continue_all(self.model, self.tokenizer, prompts, likeliest, self.batch_size)
        return [{"text": text} for text in texts]


def beside(columns: Mapping[str, Any], fields: Sequence[str], predicted: Row) -> Row:
    """A row's own columns beside what was predicted of it; one that has the name of a prediction is `input.NAME`.

    Args:
        fields: of the task's predictions.

    The words of a sentence, which a prediction repeats, stand there once.
    """
    taken = ("row", "left_out", *fields)
    return {
        f"input.{name}" if name in taken else name: None if is_missing(value) else value
        for name, value in columns.items()
        if not (name == "tokens" and predicted.get(name) == value)
    }


def rounded(chance: torch.Tensor) -> float:
    return round(float(chance), DIGITS)
