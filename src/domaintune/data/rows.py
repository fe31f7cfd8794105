"""What is wanted of a row of a table, whatever file it comes from: its record, and the group that decides its side."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from domaintune.data.cells import has, is_unfilled, number_as_text, string_in, type_name, without_zeros
from domaintune.data.fields import Fields, Record
from domaintune.data.left_out import NO_GROUP, WRONG_TYPE, RowError


class Row(NamedTuple):
    """One document, or a row that is none.

    Attributes:
        place: in its source, from 1: the line a text begins at, the line of a .jsonl row, the number of another row.
        record: what the row's format makes of it; None where the row can't be used.
        group: what `data.group_column` holds.
        given: of labels, entities and pairs what a model is given.
        reason, why: of a row that can't be used; without a reason it is blank.
        unused: messages of a chat that nothing is learnt from: after the last answer, or blank answers.
        columns: what the row holds but for pictures and sounds, where `Fields.keep` asks for it.
    """

    place: int
    record: Record | None
    group: str | None = None
    given: str | None = None
    reason: str | None = None
    why: str = "nothing stands in it"
    unused: int = 0
    columns: dict[str, Any] | None = None


def row_of(place: int, row: Any, fields: Fields) -> Row:
    """What is wanted of a row, or why it can't be used."""
    found = _row_of(place, row, fields)
    if not fields.keep or not isinstance(row, dict):
        return found
    return found._replace(columns={name: value for name, value in row.items() if not _holds_bytes(value)})


def _holds_bytes(value: Any) -> bool:
    """Whether a value is a picture, a sound or the like, or has one in it."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return isinstance(value, bytes | bytearray | memoryview) or any(map(_holds_bytes, inside))


def _row_of(place: int, row: Any, fields: Fields) -> Row:
    try:
        if isinstance(row, RowError):  # reading has found it
            raise row
        if not isinstance(row, dict):
            example = f"{{{', '.join(f'{json.dumps(name)}: ...' for name in fields.names()[:1])}}}"
            raise RowError(WRONG_TYPE, f"a row must be an object like {example}, not {type_name(row)}")
        record = fields.format.parse(row, fields)
        return with_record(Row(place, None, group_of(row, fields)), record, fields)
    except RowError as error:
        return Row(place, None, reason=error.reason, why=str(error))


def with_record(row: Row, record: Record, fields: Fields) -> Row:
    """A row with what its format says of a record."""
    format = fields.format
    return row._replace(
        record=record, given=format.given(record) if format.is_given else None, unused=format.unused(record)
    )


def group_of(row: Mapping[str, Any], fields: Fields) -> str | None:
    """The group of a row; None where rows have none. Raises RowError where it is missing."""
    if fields.group_column is None:
        return None
    group = row.get(fields.group_column)
    if is_unfilled(group):
        why = f"nothing in {fields.group_column!r}, which data.group_column names; {has(row)}"
        raise RowError(NO_GROUP, why)
    if isinstance(group, bool):
        return str(group)
    if isinstance(group, int | float):
        return number_as_text(group) if isinstance(group, float) else str(group)
    return without_zeros(str(string_in(row, fields.group_column, "")))
