import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from domaintune.config.schema import DataConfig
from domaintune.data.formats.choosing import FORMATS
from domaintune.data.splitting import SIDES, Splits, check_sides, copied, positions, read_splits, served, sides
from domaintune.errors import UsageError

MANY = [f"document number {number}" for number in range(2000)]


@pytest.fixture
def split(tmp_path: Path) -> Any:
    """split(texts or rows, val=..., test=..., **settings): the splits of a file of them, and beside it of others."""
    number = iter(range(1000))

    def made(rows: list[Any], val: list[Any] | None = None, test: list[Any] | None = None, **settings: Any) -> Splits:
        paths = {"path": rows, "val_path": val, "test_path": test}
        folder = tmp_path / str(next(number))
        files = {key: tiny.jsonl(folder / f"{key}.jsonl", *its) for key, its in paths.items() if its is not None}
        config = DataConfig(**files, **settings)
        splits = read_splits(config, str(tmp_path / "cache"))
        check_sides(splits, config)
        return splits

    return made


def texts(splits: Splits, side: str) -> list[Any]:
    return [splits.documents[number] for number in splits.of(side).tolist()]


def by_text(splits: Splits) -> dict[str, str]:
    """{text: its side}; fails where a text is on two."""
    pairs = [(text, side) for side in SIDES for text in texts(splits, side)]
    assert len(pairs) == len(dict(pairs))
    return dict(pairs)


def numbers(splits: Splits) -> list[int]:
    return [len(splits.of(side)) for side in SIDES]


def test_the_fractions_are_about_right(split: Any) -> None:
    train, val, test = numbers(split(MANY, val_fraction=0.1, test_fraction=0.05))
    assert val == pytest.approx(200, abs=40)
    assert test == pytest.approx(100, abs=30)
    assert train == 2000 - val - test


def test_a_side_is_in_the_order_of_reading(split: Any) -> None:
    for side in SIDES:
        found = texts(split(MANY), side)
        assert found == [text for text in MANY if text in set(found)]


def test_adding_documents_never_moves_another(split: Any) -> None:
    few, many = by_text(split(MANY[::3])), by_text(split(MANY))
    assert few == {text: many[text] for text in few}


def test_the_order_of_documents_does_not_move_them(split: Any) -> None:
    assert by_text(split(MANY)) == by_text(split(MANY[::-1]))


def test_the_same_seed_splits_alike_and_another_differently(split: Any) -> None:
    assert by_text(split(MANY, split_seed=1)) == by_text(split(MANY, split_seed=1))
    assert by_text(split(MANY, split_seed=1)) != by_text(split(MANY, split_seed=2))


def test_a_larger_val_fraction_keeps_the_documents_that_were_in_val(split: Any) -> None:
    small, large = (set(texts(split(MANY, val_fraction=share), "val")) for share in (0.05, 0.1))
    assert small < large


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_positions_are_spread_evenly(seed: int) -> None:
    for hashes in (np.arange(100_000, dtype=np.uint64), np.arange(100_000, dtype=np.uint64) << np.uint64(40)):
        place = positions(hashes, seed)
        assert place.min() >= 0
        assert place.max() < 1
        counts = np.histogram(place, bins=100, range=(0, 1))[0]
        assert 50 < ((counts - 1000) ** 2 / 1000).sum() < 170, "chi square with 99 degrees of freedom"


def test_positions_of_two_seeds_have_nothing_to_do_with_each_other() -> None:
    hashes = np.arange(100_000, dtype=np.uint64)
    assert abs(np.corrcoef(positions(hashes, 0), positions(hashes, 1))[0, 1]) < 0.02
    assert (positions(hashes, 3) == positions(hashes, 3)).all()
    assert (positions(hashes[::-1], 3) == positions(hashes, 3)[::-1]).all()


# Groups.


def grouped(number: int, per_group: int = 5) -> list[dict[str, str]]:
    return [{"text": f"text {n}", "author": f"author {n // per_group}"} for n in range(number)]


def groups_of(splits: Splits, side: str) -> set[int]:
    return {int(text.split()[1]) // 5 for text in texts(splits, side)}


def test_a_group_stays_on_one_side(split: Any) -> None:
    splits = split(grouped(2000), group_column="author")
    train, val, test = (groups_of(splits, side) for side in SIDES)
    assert len(train) + len(val) + len(test) == len(train | val | test) == 400
    assert len(val) == pytest.approx(40, abs=20)
    assert len(test) == pytest.approx(20, abs=15)
    assert any(len(groups_of(split(grouped(2000)), side) & train) for side in ("val", "test")), "without groups"


def test_adding_documents_and_groups_never_moves_another(split: Any) -> None:
    few = by_text(split(grouped(2000)[::3], group_column="author"))
    many = by_text(split(grouped(2000), group_column="author"))
    assert few == {text: many[text] for text in few}


def test_a_copy_in_groups_on_different_sides_is_kept_where_it_is_held_out(split: Any) -> None:
    rows = grouped(2000)
    before = by_text(split(rows, group_column="author", val_fraction=0.3, test_fraction=0.3))
    first = {side: next(row for row in rows if before[row["text"]] == side) for side in SIDES}
    for one, other, kept in [("train", "val", "val"), ("val", "test", "val"), ("test", "train", "test")]:
        copy = {"text": "the same", "author": first[one]["author"]}, {"text": "the same", **_author(first[other])}
        splits = split([*rows, *copy], group_column="author", val_fraction=0.3, test_fraction=0.3)
        assert by_text(splits) == {**before, "the same": kept}
        assert splits.duplicates == 1


@pytest.mark.parametrize("dedup", ["exact", "none"])
@pytest.mark.parametrize("format", ["labels", "entities", "pairs"])
def test_what_is_given_in_several_groups_is_on_one_side(split: Any, format: str, dedup: str) -> None:
    """Also where a few texts are in so many groups that joining these would leave one group."""
    rows = []
    for number in range(400):
        words, other = f"text {number % 150}".split(), f"{number}"
        row = {
            "labels": {"text": " ".join(words), "label": other},
            "entities": {"tokens": words, "tags": ["O", f"B-{other}"]},
            "pairs": {"source": " ".join(words), "target": other},
        }[format]
        rows.append({**row, "author": f"author {number % 40}"})
    settings = {"group_column": "author", "val_fraction": 0.3, "test_fraction": 0.2, "dedup": dedup}
    splits = split(rows, format=format, **settings)
    on = {side: {FORMATS[format].given(row) for row in texts(splits, side)} for side in SIDES}
    assert all(on.values())
    assert sum(map(len, on.values())) == len(set.union(*on.values())) == 150
    assert splits.held_out == 400 - sum(numbers(splits)) > 0


@pytest.mark.parametrize("format", ["text", "instructions"])
def test_copies_of_whole_rows_are_kept_in_groups_too_where_that_is_wanted(split: Any, format: str) -> None:
    rows = [{"text": f"text {n % 100}", "prompt": f"{n % 100}", "completion": "a"} for n in range(400)]
    rows = [{**row, "author": f"author {number % 37}"} for number, row in enumerate(rows)]
    settings = {"group_column": "author", "val_fraction": 0.3, "test_fraction": 0.2, "dedup": "none"}
    splits = split(rows, format=format, **settings)
    assert (splits.held_out, sum(numbers(splits))) == (0, 400)


def test_a_given_set_comes_before_what_is_drawn(split: Any) -> None:
    rows = [{"text": f"text {n}", "label": "a", "author": f"author {n % 40}"} for n in range(200)]
    settings = {"format": "labels", "group_column": "author", "val_fraction": 0.3, "test_fraction": 0.2}
    before = split(rows, **settings)
    drawn = texts(before, "val")[0]["text"]
    other = [{"text": drawn, "label": "b", "author": "somebody else"}]
    splits = split(rows, test=other, **settings)
    assert [row["text"] for row in texts(splits, "test")] == [drawn]
    assert drawn not in {row["text"] for side in ("train", "val") for row in texts(splits, side)}


def test_what_is_left_out_for_its_group_leaves_nothing_else_out(split: Any) -> None:
    rows = [{"text": f"text {n}", "label": "a", "author": f"author {n % 40}"} for n in range(200)]
    settings = {"format": "labels", "group_column": "author", "val_fraction": 0.3, "test_fraction": 0.2}
    before = split(rows, **settings)
    held = texts(before, "test")[0]["text"]
    trained = texts(before, "train")[0]["text"]
    authors = {row["text"]: row["author"] for row in rows}
    again = {"text": held, "label": "b", "author": authors[trained]}
    foreign = [{"text": "foreign", "label": "a", "author": authors[held]}]
    splits = split([*rows, again], val=foreign, **settings)
    assert held in {row["text"] for row in texts(splits, "train")}


def _author(row: dict[str, str]) -> dict[str, str]:
    return {"author": row["author"]}


# Copies.


def test_copies_are_counted_and_on_one_side_only(split: Any) -> None:
    splits = split(MANY + MANY[:30] + MANY[:5], val_fraction=0.3, test_fraction=0.3)
    assert splits.duplicates == 35
    assert len(by_text(splits)) == 2000


def test_of_copies_the_first_of_the_side_that_is_served_first_is_kept() -> None:
    train, val, test = 0, 1, 2
    hashes = np.array([[7, 1], [7, 2], [7, 1], [8, 1], [8, 1], [8, 1], [8, 2], [7, 1]], dtype=np.uint64)
    side = np.array([train, train, train, train, test, val, test, train], dtype=np.int8)
    rank = served(np.full(8, -1, np.int8), side)
    assert copied(hashes, rank).tolist() == [False, False, True, True, True, False, False, True]
    assert not copied(hashes[:1], rank[:1]).any()


def test_what_is_left_out_already_is_no_copy() -> None:
    hashes = np.array([[7, 1], [7, 1], [7, 1]], dtype=np.uint64)
    side = np.array([-1, 0, 0], dtype=np.int8)
    assert copied(hashes, served(np.full(3, -1, np.int8), side)).tolist() == [False, False, True]


@pytest.mark.parametrize("dedup", ["exact", "near"])
@pytest.mark.parametrize("group_column", [None, "author"])
@pytest.mark.parametrize("format", ["text", "labels"])
def test_a_test_set_that_is_given_stays_whole(split: Any, format: str, group_column: str | None, dedup: str) -> None:
    """Whatever of `path`, also what would have been drawn to validate on, has it too."""
    draw = random.Random(0)
    rows = [
        {"text": " ".join(str(draw.randrange(10**4)) for _ in range(20)), "label": "ab"[n % 2], "author": f"{n % 50}"}
        for n in range(300)
    ]
    end = " 7" if dedup == "near" else ""
    given_rows = [{**row, "text": row["text"] + end, "author": f"new {n}"} for n, row in enumerate(rows[:60])]
    settings = {"val_fraction": 0.3, "format": format, "group_column": group_column, "dedup": dedup}
    splits = split(rows, test=given_rows, **settings)
    assert len(texts(splits, "test")) == 60
    given = FORMATS[format].given
    held_out = {given(record) for record in texts(splits, "test")}
    others = {given(record) for side in ("train", "val") for record in texts(splits, side)}
    assert len(others) == 240
    assert not {text.removesuffix(end) for text in held_out} & others


def test_copies_go_from_train_before_test_before_val(split: Any) -> None:
    held_out = {"val": ["in all", "in val and test", "val"], "test": ["in all", "in val and test", "in test", "test"]}
    splits = split([*MANY[:50], "in all", "in test"], **held_out)
    assert texts(splits, "val") == held_out["val"]
    assert texts(splits, "test") == ["in test", "test"]
    assert texts(splits, "train") == MANY[:50]
    assert splits.duplicates == 4


def test_copies_inside_val_path_are_left_out_and_counted(split: Any) -> None:
    splits = split(MANY[:50], val=["held out", "held out"], test_fraction=0.0)
    assert texts(splits, "val") == ["held out"]
    assert splits.duplicates == 1


def test_copies_are_kept_where_that_is_wanted(split: Any) -> None:
    splits = split([*MANY[:50], MANY[3]], val=[MANY[3], MANY[3]], test=[MANY[3]], dedup="none")
    assert numbers(splits) == [51, 2, 1]
    assert splits.duplicates == splits.near_duplicates == 0


# Paths of their own.


def test_val_path_takes_the_place_of_the_val_part(split: Any) -> None:
    splits = split(MANY[:200], val=["held out 1", "held out 2"], val_fraction=0.5, test_fraction=0.1)
    assert texts(splits, "val") == ["held out 1", "held out 2"]
    train, _, test = numbers(splits)
    assert 5 < test < 40
    assert train == 200 - test


def test_test_path_takes_the_place_of_the_test_part(split: Any) -> None:
    splits = split(MANY[:200], test=["held out"], val_fraction=0.1, test_fraction=0.5)
    assert texts(splits, "test") == ["held out"]
    train, val, _ = numbers(splits)
    assert 5 < val < 40
    assert train == 200 - val


@pytest.mark.parametrize("side", ["val", "test"])
def test_a_set_that_is_given_moves_no_document_of_another_side(split: Any, side: str) -> None:
    before = by_text(split(MANY, val_fraction=0.3, test_fraction=0.2))
    after = by_text(split(MANY, val_fraction=0.3, test_fraction=0.2, **{side: ["held out"]}))
    drawn = {text for text, of in before.items() if of == side}
    assert len(drawn) > 100
    assert after == {**before, **dict.fromkeys(drawn, "train"), "held out": side}


def test_val_and_test_path_leave_all_of_path_to_train_on(split: Any) -> None:
    splits = split(MANY[:50], val=["held out 1"], test=["held out 2"])
    assert numbers(splits) == [50, 1, 1]


def test_the_given_sides_stand_whatever_the_hash_says(tmp_path: Path) -> None:
    path, val = tiny.jsonl(tmp_path / "a.jsonl", *MANY[:100]), tiny.jsonl(tmp_path / "v.jsonl", *MANY[100:200])
    config = DataConfig(path=path, val_path=val, test_fraction=0.5)
    splits = read_splits(config, str(tmp_path / "cache"))
    side = sides(splits.documents, config)
    assert (side[100:] == 1).all()
    assert set(side[:100].tolist()) == {0, 2}
    assert (side == splits.side).all()


# Too little.


def test_one_document_is_too_few(split: Any) -> None:
    with pytest.raises(UsageError, match=r"too small.*1 document none.*data\.unit.*data\.val_path"):
        split(MANY[:1])


def test_one_group_is_too_few(split: Any) -> None:
    with pytest.raises(UsageError, match=r"too small.*5 documents in 1 of data\.group_column=author none"):
        split(grouped(5), group_column="author")


@pytest.mark.parametrize("test_fraction", [0.0, 0.05, 0.3])
def test_the_val_fraction_that_is_suggested_works(split: Any, test_fraction: float) -> None:
    suggested = 0
    for number in range(25):
        corpus = MANY[number : number + 2 + number % 5]
        try:
            split(corpus, test_fraction=test_fraction)
        except UsageError as error:
            if match := re.search(r"With data\.val_fraction=([\d.]+) there", str(error)):
                suggested += 1
                fraction = float(match[1])
                assert fraction <= 0.9, "more than data.val_fraction may be"
                assert len(split(corpus, val_fraction=fraction, test_fraction=test_fraction).of("val"))
    assert suggested > 3


def test_the_suggestion_counts_with_the_documents_that_are_split_only(split: Any) -> None:
    """A test set of one's own is no part of the draw."""
    suggested = []
    for number in range(15):
        corpus, test = MANY[number : number + 3], MANY[500 : 501 + number]
        try:
            split(corpus, test=test, test_fraction=0.0)
        except UsageError as error:
            match = re.search(r"of 3 documents none.* With data\.val_fraction=([\d.]+) there", str(error))
            suggested += [(corpus, test, float(match[1]))] if match else []
    assert len(suggested) > 3
    for corpus, test, fraction in suggested:
        assert len(split(corpus, test=test, test_fraction=0.0, val_fraction=fraction).of("val"))


def test_documents_that_near_duplicates_leave_no_training_set_of_are_told_so(split: Any) -> None:
    """Alike but for a number: what is left would split no better."""
    alike = [f"all of these are alike but for their number, which is {number}" for number in range(200)]
    assert split(alike).near_duplicates == 0
    with pytest.raises(
        UsageError, match=r"none is left to train on.*\d nearly repeat others; data\.dedup=exact"
    ) as caught:
        split(alike, dedup="near")
    assert "With data.val_fraction" not in str(caught.value)


def test_a_path_that_val_path_covers_leaves_nothing_to_train_on(split: Any) -> None:
    with pytest.raises(UsageError, match=r"nothing to train on.*data\.path.*data\.val_path"):
        split(["a", "b"], val=["a", "b"])


def test_what_the_test_fraction_took_is_not_blamed_on_val_path(split: Any) -> None:
    taken = texts(split(MANY, val=["held out"], test_fraction=0.5), "test")[0]
    with pytest.raises(UsageError, match=r"too small.*to train on at.*data\.test_fraction=0\.5") as caught:
        split([taken], val=["held out"], test_fraction=0.5)
    assert "With data.val_fraction" not in str(caught.value)


@pytest.mark.parametrize("side", ["val", "test"])
def test_a_path_without_any_text_is_not_replaced_silently(split: Any, side: str) -> None:
    with pytest.raises(
        UsageError,
        match=rf"data\.{side}_path=.*no text in it that can be learnt from; left out are blank 2 \(.*:1, .*:2\)",
    ):
        split(MANY[:200], **{side: ["", " "]})


def test_a_path_without_any_text_is_told_beside_a_validation_set(split: Any) -> None:
    with pytest.raises(
        UsageError, match=r"data\.path=.*path\.jsonl: no text in it that can be learnt from; left out are blank 1"
    ):
        split([" "], val=["a"])


def test_documents_are_left_out_by_a_later_stage(split: Any) -> None:
    splits = split([" ", "a", "a", "b", "c"], val=["d"], test_fraction=0.0)
    less = splits.leave_out([0, 1, 2], "no tokens", "no token of it")
    assert texts(less, "train") == ["c"]
    assert texts(splits, "train") == ["a", "b", "c"]
    assert {reason: (each["rows"], each["why"]) for reason, each in less.left_out.items()} == {
        "blank": (1, "nothing stands in 'text'"),
        "no tokens": (2, "no token of it"),  # the copy of "a" was left out before
    }
    assert [place.split(":")[-1] for place in less.left_out["no tokens"]["places"]] == ["2", "4"]
    assert less.leave_out([3], "no tokens", "another").left_out["no tokens"]["rows"] == 2 + 1
    assert less.leave_out([0], "no tokens", "again") is less


def test_a_missing_val_path_is_told_under_its_own_name(tmp_path: Path) -> None:
    path = tiny.jsonl(tmp_path / "all.jsonl", *MANY[:50])
    with pytest.raises(UsageError, match=r"data\.val_path=nowhere\.txt"):
        read_splits(DataConfig(path=path, val_path="nowhere.txt"), str(tmp_path / "cache"))


# The hash.


def test_the_hash_is_that_of_the_texts_on_each_side(split: Any) -> None:
    rows = [{"text": text, "author": "somebody"} for text in MANY[:100]]
    whole = split(MANY[:100], val=["v"], test=["t"]).sha256()
    assert split(rows, val=["v"], test=["t"], text_column="text").sha256() == whole
    assert split([*MANY[:100], MANY[5]], val=["v"], test=["t"]).sha256() == whole, "a copy that is left out"
    others = {
        "a text less": split(MANY[:99], val=["v"], test=["t"]),
        "another text": split([*MANY[:99], "x"], val=["v"], test=["t"]),
        "another order": split([*MANY[1:100], MANY[0]], val=["v"], test=["t"]),
        "changed sides": split(MANY[:100], val=["t"], test=["v"]),
        "one more in test": split(MANY[:99], val=["v"], test=["t", MANY[99]]),
        "drawn sides": split([*MANY[:100], "v", "t"], val_fraction=0.3),
        "another seed": split([*MANY[:100], "v", "t"], val_fraction=0.3, split_seed=1),
    }
    assert len({whole, *(splits.sha256() for splits in others.values())}) == 1 + len(others)


def test_without_a_path_the_embedded_corpus_is_split(corpus_cache: Path) -> None:
    splits = read_splits(DataConfig(), str(corpus_cache))
    documents = sum(numbers(splits))
    assert len(splits.of("val")) == pytest.approx(0.1 * documents, rel=0.2)
    assert len(by_text(splits)) == documents > 3000


def test_splits_do_not_depend_on_the_files_that_hold_the_documents(tmp_path: Path, split: Any) -> None:
    draw = random.Random(0)
    files = [[] for _ in range(5)]  # type: list[list[str]]
    for text in MANY:
        draw.choice(files).append(text)
    paths = [tiny.jsonl(tmp_path / f"{number}.jsonl", *its) for number, its in enumerate(files)]
    assert by_text(read_splits(DataConfig(path=paths), str(tmp_path / "cache"))) == by_text(split(MANY))


def test_groups_of_a_given_validation_set_are_left_out_of_training(tmp_path: Path) -> None:
    rows = [{"text": f"text {number}", "author": str(number % 5)} for number in range(40)]
    val = [{"text": f"held out {number}", "author": str(number)} for number in range(2)]
    path, val_path = tiny.jsonl(tmp_path / "a.jsonl", *rows), tiny.jsonl(tmp_path / "v.jsonl", *val)
    config = DataConfig(path=path, val_path=val_path, group_column="author", test_fraction=0)
    splits = read_splits(config, str(tmp_path / "cache"))
    assert splits.held_out == 16
    assert len(splits.of("train")) == 24
    assert len(splits.of("val")) == 2
