"""Marks that other programs put into texts where a document begins or ends, as `<|endoftext|>`: `data.marks=end`."""

from collections.abc import Iterator
from typing import Any

from domaintune.data.cells import not_blank
from domaintune.data.fields import Fields
from domaintune.data.left_out import BLANK, NO_ANSWER, NO_LABEL
from domaintune.data.rows import Row, with_record

NEEDED = {"completion": NO_ANSWER, "text": BLANK, "source": BLANK, "target": NO_LABEL}
PARTS = ("prompt", "completion", "text", "source", "target", "content")  # of a record: they are texts


def unmarked(row: Row, fields: Fields, in_lines: bool) -> Iterator[Row]:
    """The documents of a row without their marks: those of plain text end at each mark, other texts may have one each.

    Args:
        in_lines: whether places are lines of a text.
    """
    if row.record is None:
        yield row
    elif isinstance(row.record, str):
        found = [
            row._replace(place=row.place + lines * in_lines, record=text) for lines, text in _cut(row.record, fields)
        ]
        yield from found or [row._replace(record=None)]
    else:
        record = _stripped(row.record, fields.marks)
        if reason := _emptied(record):
            yield row._replace(record=None, reason=reason, why="nothing stands there but a mark")
        else:
            yield with_record(row, record, fields)


def _emptied(content: dict[str, Any]) -> str | None:
    """The reason to leave a row out of which only marks stood where something is needed."""
    for part, reason in NEEDED.items():
        if part in content and not_blank(content[part]) is None:
            return reason
    answers = [turn for turn in content.get("messages", ()) if turn["role"] == "assistant"]
    filled = any(turn.get("tool_calls") or not_blank(turn["content"]) for turn in answers)
    return NO_ANSWER if answers and not filled else None


def _cut(text: str, fields: Fields) -> Iterator[tuple[int, str]]:
    """(number of the line, from 0; text) of each document in which something stands."""
    lines = at = 0
    for piece in text.split(fields.marks[0]):
        said = without_marks(piece, fields.marks).strip("\n")
        if not_blank(said):
            begins = text.index(said, at)
            lines += text.count("\n", at, begins)
            at = begins
            yield lines, said


def without_marks(text: str, marks: tuple[str, ...]) -> str:
    """A text without one that begins a text and one that ends it."""
    if not marks:
        return text
    end, *openings = marks
    for opening in openings:
        if text.lstrip().startswith(opening):
            text = text.lstrip().removeprefix(opening)
    return text.rstrip().removesuffix(end) if text.rstrip().endswith(end) else text


def _stripped(value: Any, marks: tuple[str, ...]) -> Any:
    if isinstance(value, list):
        return [_stripped(each, marks) for each in value]
    if isinstance(value, dict):
        return {
            key: without_marks(each, marks) if key in PARTS and isinstance(each, str) else _stripped(each, marks)
            for key, each in value.items()
        }
    return value
