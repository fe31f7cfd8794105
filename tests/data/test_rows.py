"""Rows of labels, entities and pairs, from every kind of file."""

import json
from pathlib import Path
from typing import Any

import pytest

from domaintune.config.schema import DataConfig
from domaintune.data.finding import Source, find_sources
from domaintune.data.formats.choosing import fields_of
from domaintune.data.labelling import check_labels, label_warnings, read_labels
from domaintune.data.reading import Row, read
from domaintune.data.splitting import read_splits
from domaintune.errors import UsageError


def rows(file: Path, content: str, **settings: Any) -> list[Row]:
    file.write_text(content)
    return list(read(Source(str(file), file.suffix), fields_of(DataConfig(path=str(file), **settings))))


def texts(*args: Any, **settings: Any) -> list[Any]:
    return [row.record and row.record for row in rows(*args, **settings)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", 'text,label\n"fine, really",good\nbad film,3\n'),
        ("a.tsv", "label\ttext\ngood\tfine, really\n3\tbad film\n"),
        ("a.jsonl", '{"text": "fine, really", "label": "good", "more": 1}\n{"text": "bad film", "label": 3}\n'),
        ("a.json", '[{"text": "fine, really", "label": "good"}, {"text": "bad film", "label": 3}]'),
    ],
)
def test_labels_are_read_alike_from_every_table(tmp_path: Path, name: str, content: str) -> None:
    found = rows(tmp_path / name, content, format="labels")
    assert [row.record for row in found] == [
        {"text": "fine, really", "label": "good"},
        {"text": "bad film", "label": "3"},
    ]
    assert [row.given for row in found] == ["fine, really", "bad film"], "a text stays on one side whatever its label"


def test_several_labels_are_a_list_or_a_parted_string(tmp_path: Path) -> None:
    listed = texts(
        tmp_path / "a.jsonl", '{"text": "x", "label": ["b", "a"]}\n{"text": "y", "label": []}\n', format="labels"
    )
    assert listed == [{"text": "x", "labels": ["a", "b"]}, {"text": "y", "labels": []}]
    parted = texts(tmp_path / "a.csv", "text,label\nx,b;a\ny,\n", format="labels", label_separator=";")
    assert parted == listed


def test_rows_without_a_label_are_left_out_and_odd_ones_told(tmp_path: Path) -> None:
    assert texts(tmp_path / "a.csv", "text,label\nx,\n,good\n", format="labels", strict=True) == [None, None]
    with pytest.raises(UsageError, match=r"line 1: a label in 'label' must be a string or a number, not dict"):
        texts(tmp_path / "a.jsonl", '{"text": "x", "label": {"a": 1}}\n', format="labels", strict=True)
    with pytest.raises(UsageError, match=r"no field 'label'; it has 'text', 'stars'; set data\.columns\.label"):
        texts(tmp_path / "a.jsonl", '{"text": "x", "stars": 5}\n', format="labels", strict=True)
    found = rows(tmp_path / "a.jsonl", '{"text": "x", "label": {}}\n{"text": "x", "stars": 5}\n', format="labels")
    assert [row.reason for row in found] == ["wrong type", "missing field"]
    assert texts(tmp_path / "a.jsonl", '{"text": "x", "stars": 5}\n', format="labels", columns={"label": "stars"})


CONLL = """-DOCSTART- -X- O O

EU NNP B-ORG
rejects VBZ O

-DOCSTART- -X- O O
Peter NNP B-PER
Blackburn NNP I-PER


BRUSSELS NNP B-LOC"""
SENTENCES = [
    {"tokens": ["EU", "rejects"], "tags": ["B-ORG", "O"]},
    {"tokens": ["Peter", "Blackburn"], "tags": ["B-PER", "I-PER"]},
    {"tokens": ["BRUSSELS"], "tags": ["B-LOC"]},
]


@pytest.mark.parametrize("name", ["a.conll", "a.txt", "a.tsv"])
@pytest.mark.parametrize("separator", [" ", "\t", "   "])
def test_conll_files(tmp_path: Path, name: str, separator: str) -> None:
    found = rows(tmp_path / name, CONLL.replace(" ", separator), format="entities")
    assert [row.record for row in found] == SENTENCES
    assert [row.place for row in found] == [3, 7, 11]


def test_rows_of_tokens_and_tags(tmp_path: Path) -> None:
    lines = "".join(json.dumps({"words": row["tokens"], "ner": row["tags"]}) + "\n" for row in SENTENCES)
    names = {"tokens": "words", "tags": "ner"}
    assert texts(tmp_path / "a.jsonl", lines, format="entities", columns=names) == SENTENCES


@pytest.mark.parametrize(
    ("content", "reason", "words"),
    [
        ('{"tokens": ["a", "b"], "tags": ["O"]}', "unequal lengths", "2 tokens and 1 tags"),
        ('{"tokens": ["a", "b"], "tags": []}', "unequal lengths", "2 tokens and 0 tags"),
        (
            '{"tokens": ["a"], "tags": ["PER"]}',
            "unreadable tag",
            "the tag 'PER' is neither O nor a kind after B-, I-, E- or S-",
        ),
        ('{"tokens": ["a"], "tags": [" "]}', "unreadable tag", "'tags' holds an empty string"),
        ('{"tokens": ["a"], "tags": [7]}', "unreadable tag", "one of ClassLabels"),
        ('{"tokens": "a b", "tags": ["O"]}', "wrong type", "'tokens' must be a list of strings, not str"),
        ('{"tokens": [" "], "tags": ["O"]}', "wrong type", "'tokens' holds an empty string"),
        ('{"tokens": [null], "tags": ["O"]}', "wrong type", "'tokens' holds an empty string"),
    ],
)
def test_odd_sentences_are_told(tmp_path: Path, content: str, reason: str, words: str) -> None:
    (row,) = rows(tmp_path / "a.jsonl", content, format="entities")
    assert (row.record, row.reason) == (None, reason)
    assert row.why.endswith(words)
    with pytest.raises(UsageError, match=rf"a\.jsonl, line 1: .*{words}"):
        texts(tmp_path / "a.jsonl", content, format="entities", strict=True)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"tokens": ["a", "b"], "tags": ["O", null]}', "no label"),
        ('{"tokens": ["a", "b"], "tags": ["O", NaN]}', "no label"),
        ('{"tokens": ["a"], "tags": null}', "no label"),
        ('{"tokens": [], "tags": []}', "blank"),
        ('{"tokens": null, "tags": null}', "blank"),
    ],
)
def test_sentences_with_nothing_in_them_are_counted_also_when_strict(tmp_path: Path, content: str, reason: str) -> None:
    (row,) = rows(tmp_path / "a.jsonl", content, format="entities", strict=True)
    assert (row.record, row.reason) == (None, reason)


def test_a_conll_line_of_one_column_is_told_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a\.conll, line 2: one column"):
        rows(tmp_path / "a.conll", "EU B-ORG\nrejects\n", format="entities", strict=True)
    odd, sound = rows(tmp_path / "a.conll", "EU B-ORG\nrejects\n\nEU B-ORG\n", format="entities")
    assert (odd.place, odd.reason, odd.why.split(";")[0]) == (2, "unequal lengths", "one column")
    assert sound.reason is None


def test_pairs(tmp_path: Path) -> None:
    content = "source,target\nlong text,short\nalone,\n"
    assert texts(tmp_path / "a.csv", content, format="pairs") == [{"source": "long text", "target": "short"}, None]


def test_names_of_classes_are_taken_from_a_saved_data_set(tmp_path: Path) -> None:
    import datasets

    names = datasets.ClassLabel(names=["neg", "pos"])
    features = datasets.Features({"text": datasets.Value("string"), "label": names})
    made = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    made.save_to_disk(str(tmp_path / "set"))
    config = DataConfig(format="labels", path=str(tmp_path / "set"))
    (source,) = find_sources(config, str(tmp_path)).sources
    assert [row.record["label"] for row in read(source, fields_of(config))] == ["pos", "neg"]


def splits_of(tmp_path: Path, made: list[dict[str, Any]], **settings: Any) -> Any:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in made))
    return read_splits(DataConfig(path=str(file), format="labels", **settings), str(tmp_path / "cache"))


def test_labels_are_in_order_and_counted_by_side(tmp_path: Path) -> None:
    splits = splits_of(tmp_path, [{"text": f"text {n}", "label": n % 12} for n in range(240)])
    labels = read_labels(splits, "labels")
    assert labels.names == tuple(map(str, range(12))), "numbers by their size"
    assert sum(sum(counts.values()) for counts in labels.counts.values()) == 240
    assert all(labels.of[n] == n % 12 for n in range(240))


def test_the_order_of_a_trained_head_is_kept_where_it_knows_all(tmp_path: Path) -> None:
    splits = splits_of(tmp_path, [{"text": f"text {n}", "label": "ab"[n % 2]} for n in range(40)])
    assert read_labels(splits, "labels", (["c", "b", "a"], False)).names == ("c", "b", "a")
    assert read_labels(splits, "labels", (["b", "x"], False)).names == ("a", "b")
    assert read_labels(splits, "labels", (["b", "a"], True)).names == ("a", "b")


def test_the_same_text_with_other_labels_is_on_one_side_and_counted(tmp_path: Path) -> None:
    made = [{"text": f"text {n}", "label": label} for n in range(100) for label in "ab"]
    splits = splits_of(tmp_path, made)
    assert (splits.side.reshape(100, 2)[:, 0] == splits.side.reshape(100, 2)[:, 1]).all()
    assert read_labels(splits, "labels").contradicting == 200
    assert any("200 texts" in warning for warning in label_warnings(read_labels(splits, "labels"), "labels", False))


def test_one_label_alone_and_lists_beside_single_ones_are_refused(tmp_path: Path) -> None:
    splits = splits_of(tmp_path, [{"text": f"text {n}", "label": "a"} for n in range(40)])
    with pytest.raises(UsageError, match=r"every text of the training side has the same label \(a\)"):
        check_labels(read_labels(splits, "labels"), "labels")
    mixed = [{"text": f"text {n}", "label": ["a"] if n % 2 else "a"} for n in range(40)]
    with pytest.raises(UsageError, match=r"some texts have a list of labels \(.*:\d+\) and some a single one"):
        read_labels(splits_of(tmp_path, mixed), "labels", strict=True)


def test_a_single_label_beside_lists_is_a_list_of_one(tmp_path: Path) -> None:
    mixed = [{"text": f"text {n}", "label": ["a", "b"] if n % 2 else "a"} for n in range(40)]
    labels = read_labels(splits_of(tmp_path, mixed), "labels")
    assert (labels.several, labels.names) == (True, ("a", "b"))
    assert labels.of.sum() == 60
    assert any("20 texts have a single label and 20 a list" in note for note in label_warnings(labels, "labels", False))
