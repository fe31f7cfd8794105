"""Texts to turn into others."""

from typing import Any

import numpy as np

from domaintune.config.schema import DataConfig
from domaintune.data.cells import has, text_in
from domaintune.data.encoder import CONTEXT, Encoded, Encoder
from domaintune.data.fields import Fields, Format, Record
from domaintune.data.formats.text import TEXT
from domaintune.data.left_out import BLANK, NO_LABEL


class PairsFormat(Format):
    """`source` and `target`."""

    name = "pairs"
    needs_columns = True
    is_given = True

    def parse(self, row: dict[str, Any], fields: Fields) -> Record:
        pair: dict[str, Any] = {}
        for role, column in fields.columns:
            no_field = f"no field {column!r}; {has(row)}; set data.columns.{role}"
            pair[role] = text_in(row, column, no_field, BLANK if role == "source" else NO_LABEL)
        return pair

    def given(self, record: dict[str, Any]) -> str:
        return str(record["source"])

    def asking(self, config: DataConfig, text_column: str | None) -> tuple[Format, str]:
        return TEXT, text_column or config.columns.get("source", "source")

    def encode(self, records: list[dict[str, Any]], encoder: Encoder, prefix: str) -> Encoded:
        """A source's tokens count as CONTEXT. A pair with an empty side has none."""
        sides = [text for row in records for text in (prefix + row["source"], row["target"])]
        ids, counts, lengths = encoder.encode(sides)
        ends = np.cumsum(lengths)
        for end, length in zip(ends[::2].tolist(), lengths[::2].tolist(), strict=True):
            counts[end - length : end] = CONTEXT
        bare = encoder.encode([prefix])[0]
        some = [not np.array_equal(source, bare) for source in np.split(ids, ends[:-1])[::2]]
        whole = np.array(some) & (lengths[1::2] > 0)
        kept = np.repeat(np.repeat(whole, 2), lengths)
        return Encoded(ids[kept], counts[kept], (lengths[::2] + lengths[1::2]) * whole)


PAIRS = PairsFormat()
