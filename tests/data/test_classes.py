"""Which spellings are one class, and what is odd about the names of classes."""

from typing import Any

import pytest

from domaintune.data.classes import (
    as_many_as,
    class_names,
    in_order,
    missing_words,
    on_a_scale,
    parted_by,
    spelt_alike,
)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["1", "1.0", "0"], {"1": "1", "1.0": "1", "0": "0"}),
        (["1.0", "0.0"], {"1.0": "1", "0.0": "0"}),
        (["-1.0", "-1", "good"], {"-1.0": "-1", "-1": "-1", "good": "good"}),
        (["0.5", "1", "1.0", "1.5"], {"0.5": "0.5", "1": "1.0", "1.0": "1.0", "1.5": "1.5"}),
        (["True", "true", "FALSE", "false"], {"True": "true", "true": "true", "FALSE": "false", "false": "false"}),
        (["True", "False"], {"True": "True", "False": "False"}),
        (["True", "1", "0.0"], {"True": "True", "1": "1", "0.0": "0"}),
        # Versions and codes.
        (["1.0", "1.1", "1.10"], {"1.0": "1.0", "1.1": "1.1", "1.10": "1.10"}),
        (["007", "7", "1.0", "1"], {"007": "007", "7": "7", "1.0": "1.0", "1": "1"}),
        (["1.0", "1.1", "2.0"], {"1.0": "1.0", "1.1": "1.1", "2.0": "2.0"}),
        (["1.0.0", "2.0.0"], {"1.0.0": "1.0.0", "2.0.0": "2.0.0"}),
        (["9007199254740993", "9007199254740992"], {name: name for name in ("9007199254740993", "9007199254740992")}),
        (["Good", "good"], {"Good": "Good", "good": "good"}),
        (["9" * 5000, "1"], {"9" * 5000: "9" * 5000, "1": "1"}),
    ],
)
def test_the_same_value_from_different_writers_is_one_class(labels: list[str], names: dict[str, str]) -> None:
    assert class_names(labels) == names


def test_the_names_of_a_trained_head_are_kept() -> None:
    assert class_names(["true", "false"], ["False", "True"]) == {"true": "True", "false": "False"}
    assert class_names(["1", "0"], ["0.0", "1.0"]) == {"1": "1.0", "0": "0.0"}
    assert class_names(["1", "1.0"], ["1", "1.0"]) == {"1": "1", "1.0": "1.0"}, "a head with both"


def test_numbers_are_in_order_of_their_size_before_words() -> None:
    assert sorted(["b", "10.0", "2.0", "-1", "a", "0.5", "3", "2"], key=in_order) == [
        "-1",
        "0.5",
        "2",
        "2.0",
        "3",
        "10.0",
        "a",
        "b",
    ]


def test_names_that_differ_in_spelling_alone() -> None:
    alike = ["Good", "good", "good ", "go\u200bod", "ｇｏｏｄ"]
    assert spelt_alike([*alike, "bad"]) == [alike]
    assert spelt_alike(["very  good", "very good"]) == [["very  good", "very good"]]
    assert spelt_alike(["caf\u00e9", "cafe\u0301", "cafe"]) == [["caf\u00e9", "cafe\u0301"]]
    assert spelt_alike(["1.10", "1.1", "007", "7", "a"]) == [["1.10", "1.1"], ["007", "7"]]


@pytest.mark.parametrize(
    ("names", "scale"),
    [
        ([f"{n / 10}" for n in range(51)], True),
        (["0.5", "1.0", "1.5"], False),
        (list(map(str, range(10))), False),
        (list(map(str, range(101))), True),
        ([*map(str, range(101)), "good"], False),
    ],
)
def test_many_numbers_are_a_scale(names: list[str], scale: bool) -> None:
    assert on_a_scale(names) == scale


def test_many_classes_words_for_nothing_and_lists_in_a_string() -> None:
    assert as_many_as([str(n) for n in range(190)], 200)
    assert not as_many_as([str(n) for n in range(20)], 200)
    assert not as_many_as(["a", "b"], 2)
    assert missing_words(["None", "NA", "nan", "good", "nano", "N/A"]) == ["None", "NA", "nan", "N/A"]
    cases: dict[str, Any] = {"warm,local": ("warm,local", ","), "b/a": ("b/a", "/"), "a/c": None, "x y": None}
    for name, expected in cases.items():
        assert parted_by({"warm": 3, "a": 1, "b": 1, name: 2}) == expected
    assert parted_by({"warm;local": 1, "local;warm": 1}) == ("warm;local", ";")
