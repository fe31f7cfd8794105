"""Lists that stand in a cell as text, and numbers by their value."""

import json
from typing import Any

import pytest

from domaintune.data.cells import is_missing, list_in, number_as_text, without_zeros

LISTS: dict[str, Any] = {
    '["warm", "local"]': ["warm", "local"],
    "['warm', 'local']": ["warm", "local"],
    " ['it\\'s', \"said\"] ": ["it's", "said"],
    "['warm' 'local']": ["warm", "local"],
    "['warm'\n 'local']": ["warm", "local"],
    "['a b' 'c, d' \"it's\"]": ["a b", "c, d", "it's"],
    "[0 1 -1]": [0, 1, -1],
    "[0.5 1. ]": [0.5, 1.0],
    "[]": [],
    "('warm', 'local')": ["warm", "local"],
    "{'b', 'a'}": ["a", "b"],
    "[1, 2.0, True]": [1, 2.0, True],
    '["a", null]': ["a", None],
    "[{'role': 'user', 'content': 'a'}\n {'role': 'assistant', 'content': \"b c\"}]": [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b c"},
    ],
}


@pytest.mark.parametrize("cell", LISTS)
def test_a_list_is_read_however_it_was_written(cell: str) -> None:
    assert list_in(cell) == LISTS[cell]


def test_a_list_of_text_that_looks_like_code_stays_as_it_is() -> None:
    texts = ["it's", "'a' 'b'", "1 2", "\\d", "[1 2]", "日本 語"]
    assert list_in(str(texts)) == list_in(json.dumps(texts)) == texts


@pytest.mark.parametrize(
    "cell",
    [
        "[open]",
        "[x",
        "x]",
        "(spam)",
        "(1)",
        "{}",
        '{"a": 1}',
        "a",
        "",
        "[",
        "[__import__('os')]",
        "[" * 9999 + "]" * 9999,
    ],
)
def test_a_text_in_brackets_is_no_list_unless_it_is_written_as_one(cell: str) -> None:
    assert list_in(cell) is None


def test_missing_values_and_numbers() -> None:
    assert [is_missing(value) for value in (None, float("nan"), "", "nan", 0, False)] == [True, True] + 4 * [False]
    assert [number_as_text(value) for value in (1.0, -0.0, 0.5, 2.0**53, 1e300)] == [
        "1",
        "0",
        "0.5",
        "9007199254740992",
        "1e+300",
    ]
    assert [without_zeros(text) for text in ("7.0", "7", "1.10", "007.0", "x")] == ["7", "7", "1.10", "007", "x"]
