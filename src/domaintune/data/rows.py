"""What is wanted of a row of a table, whatever file it comes from: one text, and the group that decides its side.

Rows of several columns become JSON objects in a canonical form, so that the same row has the same hash from any file.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from domaintune.data.embedded import GROUPS
from domaintune.data.finding import TEXTS, is_one_text
from domaintune.formats import ROLES
from domaintune.settings import DataConfig

GIVEN_FORMATS = ("labels", "entities", "pairs")  # whose rows are something given and something to learn from it
TAG = re.compile(r"O|[BIES]-.+")
APART = " \t\r\n"  # between words; other white space, as in "10 000" with a no-break space, is a part of its word


class Row(NamedTuple):
    """One document.

    Attributes:
        place: in its source, from 1: the line a text begins at, the line of a .jsonl row, the number of another row.
        text: plain text, or a JSON object: of instructions `prompt` and `completion` or `messages`, of labels `text`
            and `label` or a list `labels`, of entities `tokens` and `tags`, of pairs `source` and `target`.
            None where there is nothing to learn: null, blank, or without any completion, label or target.
        group: what `data.group_column` holds; without it, of labels, entities and pairs what is given, so that the same
            text with two labels is on one side.
    """

    place: int
    text: str | None
    group: str | None = None


@dataclass(frozen=True)
class Fields:
    """Which parts of the files are wanted."""

    format: str
    unit: str
    text_column: str
    columns: tuple[tuple[str, str], ...]
    group_column: str | None
    label_separator: str | None = None

    @classmethod
    def of(cls, config: DataConfig) -> "Fields":
        unit = config.unit or ("paragraph" if is_one_text(config.path) else "file")
        columns = tuple((role, config.columns.get(role, role)) for role in ROLES[config.format])
        group = config.group_column or (GROUPS.get(str(config.embedded)) if config.path is None else None)
        return cls(config.format, unit, config.text_column, columns, group, config.label_separator)

    def that_matter(self, kinds: set[str]) -> list[object]:
        """Those that decide what is read of such sources: the rest of a cache's key."""
        unit = self.unit if kinds & set(TEXTS) else None
        columns = (self.text_column if self.format == "text" else self.columns) if kinds - set(TEXTS) else None
        key: list[object] = [self.format, unit, columns, self.group_column]
        return [*key, self.text_column, self.label_separator] if self.format == "labels" else key

    def names(self) -> list[str]:
        """The columns that rows may have, `group_column` not among them."""
        text = [self.text_column] if self.format in ("text", "labels", "words") else []
        return text + [name for _, name in self.columns]

    def column(self, role: str) -> str:
        """What a role's column is called in the files."""
        return dict(self.columns)[role]


def text_of(row: Any, fields: Fields) -> str | None:
    """The row's text. Raises ValueError saying why it can't be had."""
    if not isinstance(row, dict):
        raise ValueError(f"a row must be an object like {{{json.dumps(fields.names()[0])}: ...}}, not {_type(row)}")
    if fields.format == "text":
        return not_blank(_string(row, fields.text_column, no_column(fields, row)))
    wanted = _OBJECTS[fields.format](row, fields)
    return None if wanted is None else json.dumps(wanted, ensure_ascii=False)


def _instruction(row: dict[str, Any], fields: Fields) -> dict[str, Any] | None:
    prompt, completion, messages = (name for _, name in fields.columns)
    if messages in row and not (prompt in row and completion in row and row[messages] is None):
        chat = [] if row[messages] is None else row[messages]
        if not isinstance(chat, list) or not all(isinstance(turn, dict) for turn in chat):
            raise ValueError(f"field {messages!r} must be a list of objects with role and content")
        turns = [{key: _said(turn, key) for key in ("role", "content")} for turn in chat]
        answers = [turn for turn in turns if turn["role"] == "assistant" and not_blank(turn["content"])]
        return {"messages": turns} if answers else None
    missing = no_column(fields, row)
    pair = {"prompt": _string(row, prompt, missing) or "", "completion": _string(row, completion, missing)}
    return pair if not_blank(pair["completion"]) else None


def _labelled(row: dict[str, Any], fields: Fields) -> dict[str, Any] | None:
    text = not_blank(_string(row, fields.text_column, no_column(fields, row)))
    column = fields.column("label")
    if column not in row:
        raise ValueError(f"no field {column!r}; {_has(row)}; set data.columns.label")
    value = row[column]
    if fields.label_separator is not None and isinstance(value, str):
        value = [part for part in value.split(fields.label_separator) if part.strip()]
    if isinstance(value, list):
        labels = sorted({_label(label, column) for label in value})
        return None if text is None else {"text": text, "labels": labels}
    if text is None or value is None or (isinstance(value, str) and not value.strip()):
        return None
    return {"text": text, "label": _label(value, column)}


def _label(value: object, column: str) -> str:
    if isinstance(value, bool | int):
        return str(value).lower()
    if not isinstance(value, str):
        raise ValueError(f"a label in {column!r} must be a string or a whole number, not {_type(value)}")
    return str(_string({column: value}, column, "")).strip()


def _tagged(row: dict[str, Any], fields: Fields) -> dict[str, Any] | None:
    """Of words and their tags, as many of the one as of the other."""
    lists = {}
    for role, column in fields.columns:
        if column not in row:
            raise ValueError(f"no field {column!r}; {_has(row)}; set data.columns.{role}")
        values = row[column] if row[column] is not None else []
        if not isinstance(values, list):
            raise ValueError(f"field {column!r} must be a list of strings, not {_type(values)}")
        lists[role] = [_string({column: value}, column, "") for value in values]
        if not all(word and word.strip(APART) for word in lists[role]):
            raise ValueError(f"field {column!r} holds an empty string")
    if len(lists["tokens"]) != len(lists["tags"]):
        raise ValueError(f"{len(lists['tokens'])} tokens and {len(lists['tags'])} tags")
    if wrong := next((tag for tag in lists["tags"] if not TAG.fullmatch(str(tag))), None):
        raise ValueError(f"the tag {wrong!r} is neither O nor a kind after B-, I-, E- or S-")
    return lists if lists["tokens"] else None


def _pair(row: dict[str, Any], fields: Fields) -> dict[str, Any] | None:
    pair = {}
    for role, column in fields.columns:
        pair[role] = not_blank(_string(row, column, f"no field {column!r}; {_has(row)}; set data.columns.{role}"))
    return None if None in pair.values() else pair


def _bare(row: dict[str, Any], fields: Fields) -> dict[str, Any] | None:
    """Words whose tags are not known; of a text they are parted as `split_words` does."""
    column = fields.column("tokens")
    if isinstance(row.get(column), list):
        words = [str(_string({column: value}, column, "")) for value in row[column]]
        if not all(word.strip(APART) for word in words):
            raise ValueError(f"field {column!r} holds an empty string")
    else:
        words = split_words(_string(row, fields.text_column, no_column(fields, row)) or "")
    return {"tokens": words} if words else None


def split_words(text: str) -> list[str]:
    """The words of a text, parted by plain spaces, tabs and line ends alone, as they are in files of words."""
    return [word for word in re.split(f"[{APART}]+", text) if word]


_OBJECTS = {"words": _bare, "instructions": _instruction, "labels": _labelled, "entities": _tagged, "pairs": _pair}


def given(text: str) -> str:
    """What a model is given of a row of labels, entities or pairs."""
    row = json.loads(text)
    return str(row["text"] if "text" in row else row["source"] if "source" in row else " ".join(row["tokens"]))


def _said(turn: dict[str, Any], key: str) -> str:
    said = _string(turn, key, f"a message has no {key!r}")
    if said is None:
        raise ValueError(f"a message's {key!r} must be a string, not null")
    return said


def group_of(row: Mapping[str, Any], fields: Fields) -> str | None:
    if fields.group_column is None:
        return None
    group = row.get(fields.group_column)
    if group is None or group == "":  # null as a .csv file writes it
        raise ValueError(f"nothing in {fields.group_column!r}, which data.group_column names; {_has(row)}")
    if isinstance(group, int | float):
        return str(group)
    return _string(row, fields.group_column, "")


def _string(row: Mapping[str, Any], name: str, missing: str) -> str | None:
    if name not in row:
        raise ValueError(missing)
    value = row[name]
    if value is not None and not isinstance(value, str):
        raise ValueError(f"field {name!r} must be a string, not {_type(value)}")
    if value is not None and "\0" in value:
        raise ValueError(f"field {name!r} holds a NUL character")
    try:
        (value or "").encode()
    except UnicodeEncodeError:
        raise ValueError(f"field {name!r} holds half a surrogate pair, which is no text") from None
    return value


def not_blank(text: str | None) -> str | None:
    return None if not text or text.isspace() else text


def no_column(fields: Fields, row: Any) -> str:
    if fields.format in ("text", "labels"):
        return f"no field {fields.text_column!r}; {_has(row)}; set data.text_column"
    if fields.format != "instructions":
        return f"none of {', '.join(map(repr, fields.names()))}; {_has(row)}; set data.columns"
    prompt, completion, messages = (name for _, name in fields.columns)
    return f"neither {messages!r} nor both {prompt!r} and {completion!r}; {_has(row)}; set data.columns"


def _has(row: Any) -> str:
    return f"it has {', '.join(map(repr, row)) or 'none'}"


def _type(value: object) -> str:
    return "null" if value is None else type(value).__name__
