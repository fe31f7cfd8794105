"""Rows that can't be used: each is left out under a named reason, counted, placed and explained."""

from collections.abc import Iterable
from typing import Any

BLANK, NO_LABEL, NO_ANSWER, NO_GROUP = "blank", "no label", "no answer", "no group"
MISSING_FIELD, WRONG_TYPE, UNKNOWN_ROLE = "missing field", "wrong type", "unknown role"
UNEQUAL, UNREADABLE_TAG = "unequal lengths", "unreadable tag"
REFUSED, NO_TOKENS = "refused by the chat template", "no tokens"
UNFILLED = (BLANK, NO_LABEL, NO_ANSWER)  # nothing stands there: no fault, data.strict=true counts them as well
NAMED = 5  # rows of a reason that are placed

LeftOutRows = dict[str, dict[str, Any]]
"""{reason: {`rows`: how many, `places`: of the first few, `why`: words about the first}}, as in result.json."""


class RowError(ValueError):
    """A row can't be used; the message says why."""

    def __init__(self, reason: str, why: str) -> None:
        super().__init__(why)
        self.reason = reason


def joined(rows: LeftOutRows, reason: str, number: int, places: Iterable[str], why: str) -> LeftOutRows:
    """These rows, and `number` more of a reason; the words about the first of each reason stay."""
    before = rows.get(reason, {"rows": 0, "places": [], "why": why})
    after = {
        "rows": before["rows"] + number,
        "places": [*before["places"], *places][:NAMED],
        "why": before["why"],
    }
    return {**rows, reason: after}


def counted(rows: LeftOutRows) -> str:
    """`no label 8 (a.csv:12, a.csv:40, ...), blank 1 (a.csv:3)`."""
    return ", ".join(f"{reason} {each['rows']:,} ({_places(each)})" for reason, each in rows.items())


def explained(rows: LeftOutRows) -> str:
    """The same with the words about the first row of each reason: for a person who has to mend them."""
    return "; ".join(f"{reason} {each['rows']:,} ({_places(each)}): {each['why']}" for reason, each in rows.items())


def _places(each: dict[str, Any]) -> str:
    return ", ".join([*each["places"], *["..."] * (each["rows"] > len(each["places"]))])
