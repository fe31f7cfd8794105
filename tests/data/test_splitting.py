import json
import re
from pathlib import Path

import pytest
import tiny

from domaintune.config import DataConfig, UsageError
from domaintune.data.reading import Document
from domaintune.data.splitting import Splits, read_splits, split, unique

SIDES = ("train", "val", "test")
MANY = tiny.documents(*(f"document number {number}" for number in range(2000)))


def sides(splits: Splits) -> dict[str, str]:
    """{text: its side}; fails where a text is on two."""
    pairs = [(document.text, side) for side in SIDES for document in getattr(splits, side)]
    assert len(pairs) == len(dict(pairs))
    return dict(pairs)


def jsonl(file: Path, *texts: str) -> str:
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(file)


def test_the_fractions_are_about_right() -> None:
    splits = split(MANY, 0.1, 0.05, seed=0)
    assert len(splits.val) == pytest.approx(200, abs=40)
    assert len(splits.test) == pytest.approx(100, abs=30)
    assert len(splits.train) == 2000 - len(splits.val) - len(splits.test)


def test_adding_documents_never_moves_another() -> None:
    few, many = sides(split(MANY[::3], 0.1, 0.05, seed=0)), sides(split(MANY, 0.1, 0.05, seed=0))
    assert few == {text: many[text] for text in few}


def test_the_order_of_documents_does_not_move_them() -> None:
    assert sides(split(MANY, 0.1, 0.05, seed=0)) == sides(split(MANY[::-1], 0.1, 0.05, seed=0))


def test_the_same_seed_splits_alike_and_another_differently() -> None:
    assert split(MANY, 0.1, 0.05, seed=1) == split(MANY, 0.1, 0.05, seed=1)
    assert sides(split(MANY, 0.1, 0.05, seed=1)) != sides(split(MANY, 0.1, 0.05, seed=2))


def test_a_larger_val_fraction_keeps_the_documents_that_were_in_val() -> None:
    small, large = split(MANY, 0.05, 0.0, seed=0), split(MANY, 0.1, 0.0, seed=0)
    assert {document.text for document in small.val} < {document.text for document in large.val}


def test_copies_are_counted_and_on_one_side_only() -> None:
    splits = split(MANY + MANY[:30] + MANY[:5], 0.3, 0.3, seed=0)
    assert splits.duplicates == 35
    assert len(sides(splits)) == 2000


def test_of_copies_the_first_is_kept() -> None:
    assert unique([Document("a", "1"), Document("b", "2"), Document("a", "3")]) == [
        Document("a", "1"),
        Document("b", "2"),
    ]


def test_one_document_is_too_few() -> None:
    with pytest.raises(UsageError, match=r"too small.*1 document none.*data\.unit.*data\.val_path"):
        split(MANY[:1], 0.1, 0.0, seed=0)


@pytest.mark.parametrize("test_fraction", [0.0, 0.05, 0.3])
def test_the_val_fraction_that_is_suggested_works(test_fraction: float) -> None:
    suggested = 0
    for number in range(400):
        corpus = MANY[number : number + 2 + number % 5]
        try:
            split(corpus, 0.1, test_fraction, seed=0)
        except UsageError as error:
            if match := re.search(r"With data\.val_fraction=([\d.]+) there", str(error)):
                suggested += 1
                fraction = float(match[1])
                assert fraction <= 0.9, "more than data.val_fraction may be"
                assert split(corpus, fraction, test_fraction, seed=0).val
    assert suggested > 20


def test_val_path_takes_the_place_of_the_val_part(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "all.jsonl", *(document.text for document in MANY[:200]))
    val = jsonl(tmp_path / "val.jsonl", "held out 1", "held out 2")
    splits = read_splits(DataConfig(path=path, val_path=val, val_fraction=0.5, test_fraction=0.1), "unused")
    assert [document.text for document in splits.val] == ["held out 1", "held out 2"]
    assert 5 < len(splits.test) < 40
    assert len(splits.train) == 200 - len(splits.test)


def test_val_and_test_path_leave_all_of_path_to_train_on(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "all.jsonl", *(document.text for document in MANY[:50]))
    val, test = jsonl(tmp_path / "val.jsonl", "held out 1"), jsonl(tmp_path / "test.jsonl", "held out 2")
    splits = read_splits(DataConfig(path=path, val_path=val, test_path=test), "unused")
    assert [len(getattr(splits, side)) for side in SIDES] == [50, 1, 1]


def test_copies_of_held_out_documents_are_left_out_of_train_and_counted(tmp_path: Path) -> None:
    texts = [document.text for document in MANY[:50]]
    path = jsonl(tmp_path / "all.jsonl", *texts)
    val, test = jsonl(tmp_path / "val.jsonl", texts[3], texts[4]), jsonl(tmp_path / "test.jsonl", texts[7])
    splits = read_splits(DataConfig(path=path, val_path=val, test_path=test), "unused")
    assert len(splits.train) == 47
    assert splits.duplicates == 3
    assert len(sides(splits)) == 50


def test_copies_inside_val_path_are_left_out_and_counted(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "all.jsonl", *(document.text for document in MANY[:50]))
    val = jsonl(tmp_path / "val.jsonl", "held out", "held out")
    splits = read_splits(DataConfig(path=path, val_path=val, test_fraction=0.0), "unused")
    assert [document.text for document in splits.val] == ["held out"]
    assert splits.duplicates == 1


def test_a_path_that_val_path_covers_leaves_nothing_to_train_on(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "all.jsonl", "a", "b")
    with pytest.raises(UsageError, match=re.escape(path)):
        read_splits(DataConfig(path=path, val_path=path), "unused")


def test_a_missing_val_path_is_told_under_its_own_name(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "all.jsonl", *(document.text for document in MANY[:50]))
    with pytest.raises(UsageError, match=r"data\.val_path=nowhere\.txt"):
        read_splits(DataConfig(path=path, val_path="nowhere.txt"), "unused")


def test_without_a_path_the_embedded_corpus_is_split(corpus_cache: Path) -> None:
    splits = read_splits(DataConfig(), str(corpus_cache))
    documents = sum(len(getattr(splits, side)) for side in SIDES)
    assert len(splits.val) == pytest.approx(0.1 * documents, rel=0.2)
    assert len(sides(splits)) == documents > 3000
