"""What is wanted of a row of a table, whatever file it comes from: one text, and the group that decides its side.

Rows of several columns become JSON objects in a canonical form, so that the same row has the same hash from any file.
"""

import json
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from domaintune.data.cells import (
    checked,
    has,
    is_missing,
    list_in,
    number_as_text,
    string_in,
    text_in,
    type_name,
    without_zeros,
)
from domaintune.data.chats import instruction_in, no_instruction, not_learnt, question_in
from domaintune.data.fields import Fields
from domaintune.data.left_out import (
    BLANK,
    MISSING_FIELD,
    NO_GROUP,
    NO_LABEL,
    UNEQUAL,
    UNREADABLE_TAG,
    WRONG_TYPE,
    RowError,
)

GIVEN_FORMATS = ("labels", "entities", "pairs")  # whose rows are something given and something to learn from it
INSTRUCTIONS = ("messages", "conversations", "prompt", "instruction", "chosen")  # columns that only they have
TAG = re.compile(r"O|[BIES]-.+")
APART = " \t\r\n"  # between words; other white space, as in "10 000" with a no-break space, is a part of its word


class Row(NamedTuple):
    """One document, or a row that is none.

    Attributes:
        place: in its source, from 1: the line a text begins at, the line of a .jsonl row, the number of another row.
        text: plain text, or a JSON object: of instructions `prompt` and `completion` or `messages`, of labels `text`
            and `label` or a list `labels`, of entities `tokens` and `tags`, of pairs `source` and `target`.
            None where the row can't be used.
        group: what `data.group_column` holds.
        given: of labels, entities and pairs what a model is given.
        reason, why: of a row that can't be used; without a reason it is blank.
        unused: messages of a chat that nothing is learnt from: after the last answer, or blank answers.
        columns: what the row holds but for pictures and sounds, where `Fields.keep` asks for it.
    """

    place: int
    text: str | None
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
        wanted = _wanted(row, fields)
        group = group_of(row, fields)
    except RowError as error:
        return Row(place, None, reason=error.reason, why=str(error))
    if isinstance(wanted, str):
        return Row(place, wanted, group)
    text = json.dumps(wanted, ensure_ascii=False)
    if fields.format == "asked":
        return Row(place, text)
    return Row(place, text, group, given(text) if fields.format in GIVEN_FORMATS else None, unused=not_learnt(wanted))


def _wanted(row: Any, fields: Fields) -> str | dict[str, Any]:
    """The row's text, or its object. Raises RowError saying why it can't be had, as reading may have found already."""
    if isinstance(row, RowError):
        raise row
    if not isinstance(row, dict):
        example = f"{{{json.dumps(fields.names()[0])}: ...}}"
        raise RowError(WRONG_TYPE, f"a row must be an object like {example}, not {type_name(row)}")
    if fields.format == "text":
        return text_in(row, fields.text_column, no_column(fields, row))
    return _OBJECTS[fields.format](row, fields)


def _labelled(row: dict[str, Any], fields: Fields) -> dict[str, Any]:
    text = text_in(row, fields.text_column, no_column(fields, row))
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


def _labels(values: list[Any], column: str) -> list[str]:
    """Of a list in which a member may be missing, but not all of them."""
    there = [value for value in values if not _is_unfilled(value)]
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


def _is_unfilled(value: object) -> bool:
    return is_missing(value) or (isinstance(value, str) and not value.strip())


def _tagged(row: dict[str, Any], fields: Fields) -> dict[str, Any]:
    """Of words and their tags, as many of the one as of the other."""
    words, tags = (_listed(row, role, column) for role, column in fields.columns)
    if not words and not tags:
        raise RowError(BLANK, f"nothing stands in {fields.column('tokens')!r}")
    tokens = _strings(words, fields.column("tokens"), WRONG_TYPE)
    if is_missing(row[fields.column("tags")]) or any(is_missing(tag) for tag in tags):
        raise RowError(NO_LABEL, f"a tag is missing in {fields.column('tags')!r}")
    if number := next((tag for tag in tags if isinstance(tag, int | float)), None):
        raise RowError(UNREADABLE_TAG, _about_number(number, fields.column("tags")))
    names = [name.strip() for name in _strings(tags, fields.column("tags"), UNREADABLE_TAG)]
    if len(tokens) != len(names):
        raise RowError(UNEQUAL, f"{len(tokens)} tokens and {len(names)} tags")
    if wrong := next((tag for tag in names if not TAG.fullmatch(tag)), None):
        raise RowError(UNREADABLE_TAG, f"the tag {wrong!r} is neither O nor a kind after B-, I-, E- or S-")
    return {"tokens": tokens, "tags": names}


def _about_number(tag: object, column: str) -> str:
    return (
        f"the tag {tag} in {column!r} is a number; names are read of a column in a parquet file or a data set that is "
        f"one of ClassLabels"
    )


def _listed(row: dict[str, Any], role: str, column: str) -> list[Any]:
    if column not in row:
        raise RowError(MISSING_FIELD, f"no field {column!r}; {has(row)}; set data.columns.{role}")
    value = row[column]
    if _is_unfilled(value):
        return []
    listed = list_in(value)
    if listed is None:
        raise RowError(WRONG_TYPE, f"field {column!r} must be a list of strings, not {type_name(value)}")
    return listed


def _strings(values: list[Any], column: str, reason: str) -> list[str]:
    """None of them empty; `reason` is that of a row in which one is."""
    found = [checked(None if is_missing(value) else value, f"a member of {column!r}") or "" for value in values]
    if not all(value.strip(APART) for value in found):
        raise RowError(reason, f"field {column!r} holds an empty string")
    return found


def _pair(row: dict[str, Any], fields: Fields) -> dict[str, Any]:
    pair = {}
    for role, column in fields.columns:
        no_field = f"no field {column!r}; {has(row)}; set data.columns.{role}"
        pair[role] = text_in(row, column, no_field, BLANK if role == "source" else NO_LABEL)
    return pair


def _bare(row: dict[str, Any], fields: Fields) -> dict[str, Any]:
    """Words whose tags are not known; of a text they are parted as `split_words` does."""
    column = fields.column("tokens")
    listed = list_in(row.get(column))
    if listed is not None:
        words = _strings(listed, column, WRONG_TYPE)
    else:
        words = split_words(string_in(row, fields.text_column, no_column(fields, row)) or "")
    if not words:
        raise RowError(BLANK, "nothing stands in it")
    return {"tokens": words}


def split_words(text: str) -> list[str]:
    """The words of a text, parted by plain spaces, tabs and line ends alone, as they are in files of words."""
    return [word for word in re.split(f"[{APART}]+", text) if word]


_OBJECTS = {
    "words": _bare,
    "asked": question_in,
    "instructions": instruction_in,
    "labels": _labelled,
    "entities": _tagged,
    "pairs": _pair,
}


def given(text: str) -> str:
    """What a model is given of a row of labels, entities or pairs."""
    row = json.loads(text)
    return str(row["text"] if "text" in row else row["source"] if "source" in row else " ".join(row["tokens"]))


def group_of(row: Mapping[str, Any], fields: Fields) -> str | None:
    """The group of a row; None where rows have none. Raises RowError where it is missing."""
    if fields.group_column is None:
        return None
    group = row.get(fields.group_column)
    if _is_unfilled(group):
        why = f"nothing in {fields.group_column!r}, which data.group_column names; {has(row)}"
        raise RowError(NO_GROUP, why)
    if isinstance(group, bool):
        return str(group)
    if isinstance(group, int | float):
        return number_as_text(group) if isinstance(group, float) else str(group)
    return without_zeros(str(string_in(row, fields.group_column, "")))


def no_column(fields: Fields, row: Any) -> str:
    """The message on a row, or the columns of a table, in which no text can stand."""
    if fields.format in ("text", "labels"):
        learns = fields.format == "text" and not fields.keep and any(name in row for name in INSTRUCTIONS)
        other = "; data=instructions learns to answer from such rows" * learns
        return f"no field {fields.text_column!r}; {has(row)}; set data.text_column{other}"
    if fields.format in ("instructions", "asked"):
        return no_instruction(row, fields)
    return f"none of {', '.join(map(repr, fields.names()))}; {has(row)}; set data.columns"
