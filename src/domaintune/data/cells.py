"""What stands in one cell of a row: a text, a number, a list that was written as text, or nothing."""

import ast
import io
import json
import re
import tokenize
import warnings
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from domaintune.data.left_out import BLANK, MISSING_FIELD, WRONG_TYPE, RowError

BRACKETS = {"[": "]", "(": ")", "{": "}"}  # of a list, a tuple and a set
UNPARTED = re.compile(r"""['"\]})]\s+['"\[{(]""")  # as NumPy writes ['a' 'b'], which Python reads as ['ab']
WHOLE = re.compile(r"(-?[0-9]+)\.0+")
LARGEST_WHOLE = 2**53  # up to here a float holds every whole number


def is_missing(value: object) -> bool:
    """Whether a cell holds nothing: null, or NaN as pandas writes what is missing."""
    return value is None or (isinstance(value, float | Decimal) and value != value)


def not_blank(text: str | None) -> str | None:
    return None if not text or text.isspace() else text


def string_in(row: Mapping[str, Any], name: str, no_field: str) -> str | None:
    """The string of a field; None where the field holds nothing.

    Args:
        no_field: the message where there is no such field.

    Raises:
        RowError: there is no such field, or it holds something else.
    """
    if name not in row:
        raise RowError(MISSING_FIELD, no_field)
    return checked(None if is_missing(row[name]) else row[name], f"field {name!r}")


def text_in(row: Mapping[str, Any], name: str, no_field: str, reason: str = BLANK) -> str:
    """The same where the field must not be blank; `reason` is that of a row in which it is."""
    text = not_blank(string_in(row, name, no_field))
    if text is None:
        raise RowError(reason, f"nothing stands in {name!r}")
    return text


def checked(value: Any, what: str) -> str | None:
    """A string that can be stored as text, or None. Raises RowError where the value is something else."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise RowError(WRONG_TYPE, f"{what} must be a string, not {type_name(value)}")
    if "\0" in value:
        raise RowError(WRONG_TYPE, f"{what} holds a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RowError(WRONG_TYPE, f"{what} holds half a surrogate pair, which is no text") from None
    return value


def list_in(value: Any) -> list[Any] | None:
    """The list in a cell: itself, or as JSON, Python or NumPy writes it as text; None where there is none."""
    if isinstance(value, list | tuple):
        return list(value)
    if not isinstance(value, str):
        return None
    text = value.strip()
    if len(text) < 2 or text[-1] != BRACKETS.get(text[0]):
        return None
    for read in (json.loads, _literal):
        try:
            found = read(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError, tokenize.TokenError):
            continue
        if isinstance(found, set):
            return sorted(found, key=repr)
        return list(found) if isinstance(found, list | tuple) else None
    return None


def json_of(value: Any) -> Any:
    """A value, or what a text of JSON holds; None where it is no JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None


def _literal(text: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes that a person wrote
        if UNPARTED.search(text):
            return ast.literal_eval(_with_commas(text))
        try:
            return ast.literal_eval(text)
        except SyntaxError:
            return ast.literal_eval(_with_commas(text))


def _with_commas(text: str) -> str:
    """The text with a comma between two members that only white space parts."""
    parts: list[tuple[int, str]] = []
    for kind, part, *_ in tokenize.generate_tokens(io.StringIO(text).readline):
        begins = kind in (tokenize.STRING, tokenize.NUMBER, tokenize.NAME) or part in ("[", "{", "(", "-")
        if begins and parts and _ends_member(*parts[-1]):
            parts.append((tokenize.OP, ","))
        if kind not in (tokenize.NL, tokenize.COMMENT):
            parts.append((kind, part))
    return str(tokenize.untokenize(parts)).strip()


def _ends_member(kind: int, part: str) -> bool:
    return kind in (tokenize.STRING, tokenize.NUMBER, tokenize.NAME) or part in ("]", "}", ")")


def number_as_text(value: float | Decimal) -> str:
    """A number by its value: 1 and 1.0 are the same."""
    number = float(value)
    if number.is_integer() and abs(number) <= LARGEST_WHOLE:
        return str(int(number))
    return repr(number)


def without_zeros(text: str) -> str:
    """A whole number that was written as a float, as that number; any other text as it is."""
    match = WHOLE.fullmatch(text.strip())
    return match[1] if match else text


def has(row: Iterable[Any]) -> str:
    """Which fields there are, for a message that misses one."""
    return f"it has {', '.join(map(repr, row)) or 'none'}"


def type_name(value: object) -> str:
    return "null" if value is None else type(value).__name__


def is_unfilled(value: object) -> bool:
    """Whether nothing stands in a cell but white space."""
    return is_missing(value) or (isinstance(value, str) and not value.strip())
