"""Plain text."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from domaintune.config.schema import DataConfig
from domaintune.data.cells import has, text_in
from domaintune.data.encoder import Encoded, Encoder, specials_of
from domaintune.data.fields import Fields, Format, Record

OF_INSTRUCTIONS = ("messages", "conversations", "prompt", "instruction", "chosen")  # columns that only they have


class TextFormat(Format):
    """A text. It is a record as it is."""

    name = "text"
    has_text = True
    is_text = True

    def parse(self, row: dict[str, Any], fields: Fields) -> Record:
        return text_in(row, fields.text_column, self.no_column(row, fields))

    def given(self, record: str) -> str:
        return record

    def no_column(self, row: Iterable[Any], fields: Fields) -> str:
        learns = not fields.keep and any(name in row for name in OF_INSTRUCTIONS)
        other = "; data=instructions learns to answer from such rows" * learns
        return f"no field {fields.text_column!r}; {has(row)}; set data.text_column{other}"

    def asking(self, config: DataConfig, text_column: str | None) -> tuple[Format, str]:
        return self, text_column or config.text_column

    def encode(self, records: list[str], encoder: Encoder, prefix: str) -> Encoded:
        return Encoded(*encoder.encode(records))

    def encode_documents(self, records: list[str], first: int, tokenizer: Any, encoder: Encoder) -> Encoded:
        """What the tokenizer puts before a text, the text's tokens, and one end-of-text token. Both stand for no bytes.

        A text without a token stays without one.
        """
        (ids, counts, lengths), before = encoder.encode(records), specials_of(tokenizer).before
        ends, some = np.cumsum(lengths), lengths > 0
        frame = np.array([*before, tokenizer.eos_token_id], dtype=np.int32)
        places = np.repeat(np.stack([ends - lengths, ends], axis=1)[some], [before.size, 1], axis=1).ravel()
        ids = np.insert(ids, places, np.tile(frame, int(some.sum())))
        return Encoded(ids, np.insert(counts, places, 0), lengths + some * frame.size)


TEXT = TextFormat()
