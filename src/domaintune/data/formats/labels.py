"""Texts with a label each, or several."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from domaintune.config.schema import DataConfig
from domaintune.data.cells import checked, has, is_missing, is_unfilled, list_in, number_as_text, text_in, type_name
from domaintune.data.encoder import Encoded, Encoder
from domaintune.data.fields import Fields, Format, Record
from domaintune.data.formats.text import TEXT
from domaintune.data.left_out import MISSING_FIELD, NO_LABEL, WRONG_TYPE, RowError


class LabelsFormat(Format):
    """`text`, and `label` or a list `labels`."""

    name = "labels"
    has_text = True
    needs_columns = True
    is_given = True

    def parse(self, row: dict[str, Any], fields: Fields) -> Record:
        text = text_in(row, fields.text_column, self.no_column(row, fields))
        column = fields.column("label")
        if column not in row:
            raise RowError(MISSING_FIELD, f"no field {column!r}; {has(row)}; set data.columns.label")
        value = row[column]
        listed = list_in(value)
        if listed is not None:
            return {"text": text, "labels": _labels(listed, column)}
        if is_missing(value):
            raise RowError(NO_LABEL, f"nothing stands in {column!r}")
        if fields.label_separator is not None and isinstance(value, str):
            parts = [part for part in value.split(fields.label_separator) if part.strip()]
            return {"text": text, "labels": _labels(parts, column)}
        return {"text": text, "label": _label(value, column)}

    def given(self, record: dict[str, Any]) -> str:
        return str(record["text"])

    def no_column(self, row: Iterable[Any], fields: Fields) -> str:
        return f"no field {fields.text_column!r}; {has(row)}; set data.text_column"

    def settings(self, fields: Fields) -> list[object]:
        return [fields.text_column, fields.label_separator]

    def asking(self, config: DataConfig, text_column: str | None) -> tuple[Format, str]:
        return TEXT.asking(config, text_column)

    def encode(self, records: list[dict[str, Any]], encoder: Encoder, prefix: str) -> Encoded:
        return TEXT.encode([record["text"] for record in records], encoder, prefix)


def _labels(values: list[Any], column: str) -> list[str]:
    """Of a list in which a member may be missing, but not all of them."""
    there = [value for value in values if not is_unfilled(value)]
    if values and not there:
        raise RowError(NO_LABEL, f"the list in {column!r} holds nothing")
    return sorted({_label(value, column) for value in there})


def _label(value: object, column: str) -> str:
    """The name of a class as it is written; labelling finds which spellings are one class."""
    if isinstance(value, bool | int):
        return str(value).lower()
    if isinstance(value, float | Decimal) and abs(value) != float("inf"):
        return number_as_text(value)
    if not isinstance(value, str):
        what = value if isinstance(value, float | Decimal) else type_name(value)
        raise RowError(WRONG_TYPE, f"a label in {column!r} must be a string or a number, not {what}")
    label = str(checked(value, f"field {column!r}")).strip()
    if not label:
        raise RowError(NO_LABEL, f"nothing stands in {column!r}")
    return label


LABELS = LabelsFormat()
