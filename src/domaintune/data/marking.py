"""Marks that other programs put into texts where a document begins or ends, as `<|endoftext|>`: `data.marks=end`."""

import json
from collections.abc import Iterator
from typing import Any

from domaintune.data.cells import not_blank
from domaintune.data.fields import Fields
from domaintune.data.left_out import NO_ANSWER
from domaintune.data.rows import Row

PARTS = ("prompt", "completion", "text", "source", "target", "content")  # of a row's JSON: they are texts


def unmarked(row: Row, fields: Fields, in_lines: bool) -> Iterator[Row]:
    """The documents of a row without their marks: those of plain text end at each mark, other texts may have one each.

    Args:
        in_lines: whether places are lines of a text.
    """
    if row.text is None:
        yield row
    elif fields.format == "text":
        found = [row._replace(place=row.place + lines * in_lines, text=text) for lines, text in _cut(row.text, fields)]
        yield from found or [row._replace(text=None)]
    else:
        content = _stripped(json.loads(row.text), fields.marks)
        if not_blank(content.get("completion", "some")) is None:
            yield row._replace(text=None, reason=NO_ANSWER, why="the completion is nothing but a mark")
        else:
            yield row._replace(text=json.dumps(content, ensure_ascii=False))


def _cut(text: str, fields: Fields) -> Iterator[tuple[int, str]]:
    """(number of the line, from 0; text) of each document in which something stands."""
    lines = at = 0
    for piece in text.split(fields.marks[0]):
        said = _without_marks(piece, fields.marks).strip("\n")
        if not_blank(said):
            begins = text.index(said, at)
            lines += text.count("\n", at, begins)
            at = begins
            yield lines, said


def _without_marks(text: str, marks: tuple[str, ...]) -> str:
    """Without one that begins a text and one that ends it."""
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
            key: _without_marks(each, marks) if key in PARTS and isinstance(each, str) else _stripped(each, marks)
            for key, each in value.items()
        }
    return value
