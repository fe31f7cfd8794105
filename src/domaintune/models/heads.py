"""What a task has transformers put on the body of a model."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Head:
    """The head of a task's models.

    Attributes:
        auto: the Auto class of transformers that opens them.
        words: what a message calls them.
        is_new: whether a checkpoint may lack it: then it is drawn from the seed. Other tasks need all weights.
        special_token: one that the tokenizer must have: `eos_token` or `mask_token`.
        peft_type: what the peft library calls the task, by which its Auto classes open an adapter.
        goes_on: whether what is written follows what was given, so that padding stands before it.
    """

    auto: Any
    words: str
    is_new: bool = False
    special_token: str | None = None
    peft_type: str | None = None
    goes_on: bool = False
