"""data.marks=end: what other programs put between documents ends them, and is no text."""

from pathlib import Path
from typing import Any

import pytest
import tiny

from domaintune.config.schema import DataConfig
from domaintune.data.finding import Source
from domaintune.data.formats.choosing import fields_of
from domaintune.data.inputs import find_inputs, input_fields, read_inputs
from domaintune.data.left_out import BLANK, NO_ANSWER, NO_LABEL
from domaintune.data.reading import read
from domaintune.data.rows import Row
from domaintune.data.splitting import read_splits

MARKS = ("<|end|>", "<s>", "<|startoftext|>")


def rows(file: Path, **settings: Any) -> list[Row]:
    return list(read(Source(str(file), file.suffix), fields_of(DataConfig(path=str(file), **settings), MARKS)))


def placed(found: list[Row]) -> list[tuple[int, str | None]]:
    return [(row.place, row.record) for row in found]


def test_a_text_file_is_cut_at_its_marks_alone(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text(
        "<|startoftext|>One,\n\nof two paragraphs.<|end|>\n<|end|>\n<s>Two<|end|>Three\n\n", encoding="utf-8"
    )
    assert placed(rows(file)) == [(1, "One,\n\nof two paragraphs."), (5, "Two"), (5, "Three")]


@pytest.mark.parametrize("unit", ["line", "paragraph"])
def test_each_line_or_paragraph_is_cut_too(tmp_path: Path, unit: str) -> None:
    file = tmp_path / "a.txt"
    file.write_text("<|startoftext|>One<|end|>\n\nTwo<|end|>Three<|end|>\n\n<|end|>\n", encoding="utf-8")
    assert placed(rows(file, unit=unit)) == [(1, "One"), (3, "Two"), (3, "Three"), (5, None)]


def test_a_row_of_a_table_gives_several_documents_of_its_group(tmp_path: Path) -> None:
    file = Path(
        tiny.jsonl(tmp_path / "a.jsonl", {"text": "One\n<|end|>Two<|end|>", "by": "me"}, {"text": "<|end|>", "by": "x"})
    )
    assert [(row.place, row.record, row.group) for row in rows(file, group_column="by")] == [
        (1, "One", "me"),
        (1, "Two", "me"),
        (2, None, "x"),
    ]


def test_a_completion_loses_the_mark_that_ends_it(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "<s>Hi"}, {"role": "assistant", "content": "Say <|end|> now.<|end|> \n"}]
    lines = [
        {"prompt": "<|startoftext|>Q<|end|>", "completion": "A <|end|> B<|end|>\n"},
        {"prompt": "", "completion": "<|end|>"},
        {"messages": chat},
    ]
    found = rows(Path(tiny.jsonl(tmp_path / "a.jsonl", *lines)), format="instructions")
    assert [None if row.record is None else row.record for row in found] == [
        {"prompt": "Q", "completion": "A <|end|> B"},
        None,
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Say <|end|> now."}]},
    ]
    assert found[1].reason == NO_ANSWER


def test_without_the_setting_nothing_is_cut_and_the_cache_tells_the_two_apart(tmp_path: Path) -> None:
    path, cache = tiny.jsonl(tmp_path / "a.jsonl", "One<|end|>Two"), str(tmp_path / "cache")
    config = DataConfig(path=path)
    assert [len(read_splits(config, cache, marks).documents) for marks in ((), MARKS, MARKS[:1], ())] == [1, 2, 2, 1]
    assert read_splits(config, cache).documents[0] == "One<|end|>Two"


@pytest.mark.parametrize(
    ("format", "row", "reason"),
    [
        ("labels", {"text": "<|end|>", "label": "x"}, BLANK),
        ("pairs", {"source": "<|end|>", "target": "x"}, BLANK),
        ("pairs", {"source": "x", "target": " <|end|>"}, NO_LABEL),
        (
            "instructions",
            {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "<|end|>"}]},
            NO_ANSWER,
        ),
    ],
)
def test_a_text_that_is_nothing_but_a_mark_is_left_out(
    tmp_path: Path, format: str, row: dict[str, Any], reason: str
) -> None:
    (found,) = rows(Path(tiny.jsonl(tmp_path / "a.jsonl", row)), format=format)
    assert (found.record, found.reason) == (None, reason)


def test_a_row_gives_what_it_holds_without_its_mark(tmp_path: Path) -> None:
    """So the same text with a mark and without one is on one side."""
    row = {"text": "good <|end|>", "label": "a"}
    (found,) = rows(Path(tiny.jsonl(tmp_path / "a.jsonl", row)), format="labels", columns={"label": "label"})
    assert found.given == found.record["text"] == "good "


def test_a_row_that_is_asked_about_stays_one_row(tmp_path: Path) -> None:
    file = Path(tiny.jsonl(tmp_path / "a.jsonl", {"text": "<s>good <|end|> bad<|end|>"}, {"text": "<|end|>"}))
    config = DataConfig(path=str(file), format="labels", columns={"label": "label"}, marks="end", embedded=None)
    fields = input_fields(str(file), config, None, None)
    found = read_inputs(find_inputs(str(file), config, str(tmp_path / "cache")).sources, fields, MARKS)
    assert [row.text for row in found] == ["good <|end|> bad", None]
