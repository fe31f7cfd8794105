import json
from pathlib import Path
from typing import Any

import pytest

from domaintune.config.schema import DataConfig
from domaintune.data.inputs import Input, find_inputs, input_fields, read_inputs
from domaintune.errors import UsageError


def read(
    file: Path, text_column: str | None = None, unit: str | None = None, said: str | None = None, **config: Any
) -> list[Input]:
    data = DataConfig(**{"embedded": None, **config})
    fields = input_fields(str(file), data, text_column, unit)
    return list(read_inputs(find_inputs(str(file), data, str(file.parent / "cache"), said).sources, fields))


def file_of(folder: Path, name: str, content: str) -> Path:
    (folder / name).write_text(content)
    return folder / name


def texts(inputs: list[Input]) -> list[str | None]:
    return [row.text for row in inputs]


def test_every_row_is_there_also_blank_ones_and_copies(tmp_path: Path) -> None:
    file = file_of(tmp_path, "a.csv", 'text,label\none,x\n"",y\none,x\n')
    assert texts(read(file, format="labels")) == ["one", None, "one"]
    assert [row.place for row in read(file, format="labels")] == [f"{file}:{line}" for line in (2, 3, 4)]


def test_labels_are_not_needed(tmp_path: Path) -> None:
    assert texts(read(file_of(tmp_path, "a.jsonl", '{"text": "one"}\n'), format="labels")) == ["one"]


def test_the_column_is_that_of_training_unless_another_is_said(tmp_path: Path) -> None:
    file = file_of(tmp_path, "a.jsonl", json.dumps({"source": "s", "article": "a", "text": "t", "prompt": "p"}) + "\n")
    assert texts(read(file, format="pairs")) == ["s"]
    assert texts(read(file, format="pairs", columns={"source": "article"})) == ["a"]
    assert texts(read(file, format="pairs", text_column="text")) == ["t"]
    assert texts(read(file, format="instructions")) == ["p"]
    with pytest.raises(UsageError, match=r"no field 'body'.*set data\.text_column"):
        read(file, "body", format="labels")


def test_plain_text_is_cut_by_its_unit(tmp_path: Path) -> None:
    file = file_of(tmp_path, "a.txt", "one\ntwo\n\nthree\n")
    assert texts(read(file, format="labels")) == ["one\ntwo", "three"]
    assert texts(read(file, unit="line", format="labels")) == ["one", "two", "three"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.conll", "Ann B-PER\nruns O\n\nBob B-PER\n"),
        ("a.tsv", "Ann\tB-PER\nruns\tO\n\nBob\tB-PER\n"),
        ("a.jsonl", '{"tokens": ["Ann", "runs"]}\n{"tokens": ["Bob"], "tags": ["O"]}\n'),
        ("a.csv", "text\nAnn  runs\nBob\n"),
        ("a.txt", "Ann runs\n\nBob\n"),
        ("a.conll", "Ann\nruns\n\nBob\n"),
        ("a.tsv", "Ann\nruns\n\nBob\n"),
    ],
)
def test_words_of_every_kind_of_file(tmp_path: Path, name: str, content: str) -> None:
    rows = read(file_of(tmp_path, name, content), format="entities")
    assert [row.words for row in rows] == [("Ann", "runs"), ("Bob",)]


@pytest.mark.parametrize("name", ["a.txt", "a.csv"])
def test_a_text_that_begins_with_a_brace_is_a_text(tmp_path: Path, name: str) -> None:
    rows = read(file_of(tmp_path, name, "text\n" * (name == "a.csv") + "{ is a brace\n"), format="entities")
    assert rows[0].words == ("{", "is", "a", "brace")


def test_neither_words_nor_text_is_told(tmp_path: Path) -> None:
    file = file_of(tmp_path, "a.jsonl", '{"words": ["Ann"]}\n')
    with pytest.raises(UsageError, match=r"a\.jsonl, line 1: none of 'text', 'tokens'"):
        read(file, format="entities", strict=True)
    with pytest.raises(
        UsageError, match=r"no row can be asked .* missing field 1 \(.*a\.jsonl:1\): none of 'text', 'tok"
    ):
        read(file, format="entities")


def test_an_odd_row_among_others_says_why(tmp_path: Path) -> None:
    found = read(file_of(tmp_path, "a.jsonl", '{"text": 5}\n{"text": null}\n{"text": "x"}\n'), format="labels")
    assert texts(found) == [None, None, "x"]
    assert [row.left_out for row in found] == ["wrong type: field 'text' must be a string, not int", None, None]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.conll", "10\u00a0000 B-SUM\n\u3000 O\n"),
        ("a.tsv", "10\u00a0000\tB-SUM\n\u3000\tO\n"),
        ("a.jsonl", json.dumps({"tokens": ["10\u00a0000", "\u3000"]})),
        ("a.csv", "text\n10\u00a0000 \u3000\n"),
        ("a.txt", "10\u00a0000\t\u3000\n"),
    ],
)
def test_words_are_parted_as_in_training(tmp_path: Path, name: str, content: str) -> None:
    (row,) = read(file_of(tmp_path, name, content), format="entities")
    assert row.words == ("10\u00a0000", "\u3000")


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl"])
def test_the_encoding_of_training_is_that_of_files_that_are_not_utf_8(tmp_path: Path, name: str) -> None:
    text = "我們在這裡"
    content = {"a.txt": text, "a.csv": f"text\n{text}\n", "a.jsonl": f'{{"text": "{text}"}}'}[name]
    for encoding in ("big5", "utf-8", "utf-16", "utf-8-sig"):
        (tmp_path / name).write_bytes(content.encode(encoding))
        assert texts(read(tmp_path / name, format="labels", encoding="big5")) == [text], encoding
    (tmp_path / name).write_bytes(content.encode("gb18030"))
    assert texts(read(tmp_path / name, said="gb18030", format="labels", encoding="big5")) == [text]


HISTORY = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
CHAT = [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]


@pytest.mark.parametrize(
    ("row", "turns"),
    [
        ({"messages": CHAT}, CHAT[:1]),
        ({"messages": CHAT * 2}, [*CHAT, CHAT[0]]),
        ({"messages": CHAT[:1], "system": "Be short."}, [{"role": "system", "content": "Be short."}, CHAT[0]]),
        ({"conversations": [{"from": "human", "value": "2+2?"}]}, CHAT[:1]),
        ({"instruction": "2+2", "input": "?"}, [{"role": "user", "content": "2+2\n\n?"}]),
        ({"instruction": "2+2?", "output": "4", "history": [["a", "b"]]}, [*HISTORY, CHAT[0]]),
        ({"prompt": CHAT[:1], "completion": CHAT[1:]}, CHAT[:1]),
        ({"prompt": "2+2?", "system": "S"}, [{"role": "system", "content": "S"}, CHAT[0]]),
    ],
)  # fmt: skip
def test_a_row_of_instructions_is_asked_as_it_would_be_learnt(
    tmp_path: Path, row: dict[str, Any], turns: list[dict[str, str]]
) -> None:
    [asked] = read(file_of(tmp_path, "a.jsonl", json.dumps(row) + "\n"), format="instructions")
    assert (list(asked.turns), asked.left_out) == (turns, None)
    assert asked.text == turns[-1]["content"]


def test_rows_of_instructions_in_which_nothing_is_asked_have_their_reason(tmp_path: Path) -> None:
    rows = [
        {"messages": CHAT[1:]},
        {"messages": [{"role": "narrator", "content": "a"}]},
        {"answer": "a"},
        {"prompt": "p"},
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    asked = read(file_of(tmp_path, "a.jsonl", lines), format="instructions")
    assert [(row.text, row.turns) for row in asked] == [(None, ())] * 3 + [("p", ())]
    assert asked[0].left_out is None, "blank"
    assert asked[1].left_out is not None
    assert asked[1].left_out.startswith("unknown role: the role 'narrator'")
    assert asked[2].left_out is not None
    assert asked[2].left_out.startswith(
        "missing field: no field 'prompt', 'messages' or 'instruction'; it has 'answer'"
    )


def test_lines_of_a_text_are_prompts(tmp_path: Path) -> None:
    file = file_of(tmp_path, "a.txt", "one\ntwo\n")
    assert texts(read(file, unit="line", format="instructions")) == ["one", "two"]


@pytest.mark.parametrize("content", ["", " ", None])
def test_a_system_message_in_which_nothing_stands_asks_nothing(tmp_path: Path, content: str | None) -> None:
    row = {"prompt": [{"role": "system", "content": content}]}
    [asked] = read(file_of(tmp_path, "a.jsonl", json.dumps(row) + "\n"), format="instructions")
    assert (asked.text, asked.turns, asked.left_out) == (None, (), None)
