import csv
import gzip
import random
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny

from domaintune.config.schema import DataConfig
from domaintune.data import documents as documents_module
from domaintune.data.documents import Documents, read_documents
from domaintune.data.finding import Source, find_sources
from domaintune.data.formats.choosing import fields_of
from domaintune.data.reading import Fields, Row
from domaintune.data.splitting import read_splits
from domaintune.errors import UsageError

TEXTS = [
    "one",
    "zwei\nand\ttabs ",
    "日本語の文書",
    "😀👩‍💻",
    "e\u0301 \u00e9\u2028x",
    "long " * 50_000,
    '"quoted", \\n',
]


def read(tmp_path: Path, **settings: object) -> Documents:
    config = DataConfig(**settings)  # type: ignore[arg-type]
    return read_documents(find_sources(config, "unused").sources, fields_of(config), str(tmp_path / "cache"))


def entries(tmp_path: Path) -> int:
    return sum(place.is_dir() for place in (tmp_path / "cache" / "documents").iterdir())


def test_texts_come_back_as_they_were(tmp_path: Path) -> None:
    documents = tiny.documents(tmp_path, *TEXTS)
    assert len(documents) == len(TEXTS)
    assert list(documents.records(0, len(TEXTS))) == TEXTS
    assert list(documents.records(2, 4)) == TEXTS[2:4]
    assert list(documents.records(3, 3)) == []
    assert [documents[number] for number in range(len(TEXTS))] == TEXTS
    assert documents.starts[-1] == sum(len(text.encode()) for text in TEXTS)


@pytest.mark.parametrize("size", [1, 7, 100, 10**9])
def test_batches_cover_every_document_once_in_order(tmp_path: Path, size: int) -> None:
    draw = random.Random(0)
    documents = tiny.documents(tmp_path, *("x" * draw.randint(1, 60) for _ in range(500)))
    batches = list(documents.batches(size))
    assert [number for first, end in batches for number in range(first, end)] == list(range(500))
    assert all(first < end for first, end in batches)
    sizes = [int(documents.starts[end] - documents.starts[first]) for first, end in batches]
    assert max(sizes) < size + 60
    assert min(sizes[:-1], default=size) >= size


def test_equal_texts_and_only_these_have_equal_hashes(tmp_path: Path) -> None:
    hashes = tiny.documents(tmp_path, "a", "b", "a", "a ").hashes
    assert hashes.shape == (4, 2)
    assert [bool((hashes[0] == other).all()) for other in hashes] == [True, False, True, False]


def test_places_name_file_and_line(tmp_path: Path) -> None:
    first = tiny.jsonl(tmp_path / "a.jsonl", "one", "two")
    (tmp_path / "b.txt").write_text("\nthree\nstill three\n\n\nfour\n")
    documents = read(tmp_path, path=[first, str(tmp_path / "b.txt")], unit="paragraph")
    places = [f"{first}:1", f"{first}:2", f"{tmp_path}/b.txt:2", f"{tmp_path}/b.txt:6"]
    assert [documents.place(number) for number in range(4)] == places


def test_blank_rows_are_left_out_counted_and_the_first_few_named(tmp_path: Path) -> None:
    rows = ["one", "", " \n\t", {"text": None}, "two", *[""] * 10]
    path = tiny.jsonl(tmp_path / "a.jsonl", *rows)
    documents = read(tmp_path, path=path)
    assert list(documents.records(0, len(documents))) == ["one", "two"]
    assert len(documents.rows_left_out) == 13
    places = [f"{path}:{line}" for line in (2, 3, 4, 6, 7)]
    assert {reason: (each["rows"], each["places"]) for reason, each in documents.left_out().items()} == {
        "blank": (13, places)
    }
    assert documents.place(1) == f"{path}:5"


def test_files_without_any_text_are_told_with_their_first_rows(tmp_path: Path) -> None:
    path = tiny.jsonl(tmp_path / "a.jsonl", *[" "] * 1_234)
    with pytest.raises(
        UsageError,
        match=rf"^{re.escape(path)}: no text in it.* left out are blank 1,234 \(.*:1, .*:5, \.\.\.\): nothing",
    ):
        read(tmp_path, path=path)
    (tmp_path / "b.txt").touch()
    with pytest.raises(UsageError, match="no text in any of 2 files"):
        read(tmp_path, path=[path, str(tmp_path / "b.txt")])
    assert entries(tmp_path) == 0


def test_a_damaged_file_leaves_no_entry_and_names_the_line(tmp_path: Path) -> None:
    path = Path(tiny.jsonl(tmp_path / "a.jsonl", "one", "two"))
    path.write_text(path.read_text() + "{broken\n")
    with pytest.raises(UsageError, match=r"a\.jsonl, line 3"):
        read(tmp_path, path=str(path))
    assert entries(tmp_path) == 0


def test_files_that_moved_are_not_read_again_and_called_by_their_new_names(tmp_path: Path) -> None:
    old = tiny.jsonl(tmp_path / "old" / "a.jsonl", "one", "two")
    before = read(tmp_path, path=old)
    new = tmp_path / "new" / "b.jsonl"
    new.parent.mkdir()
    Path(old).rename(new)
    after = read(tmp_path, path=str(new))
    assert after.folder == before.folder
    assert after.place(1) == f"{new}:2"


def test_sides_and_groups_come_with_the_documents(tmp_path: Path) -> None:
    rows = [{"text": str(number), "author": f"author {number % 3}"} for number in range(6)]
    all_of_it, val = tiny.jsonl(tmp_path / "a.jsonl", *rows), tiny.jsonl(tmp_path / "v.jsonl", *rows[:2])
    grouped = read(tmp_path, path=all_of_it, val_path=val, group_column="author")
    assert grouped.given_sides.tolist() == [-1] * 6 + [1, 1]
    hashes = grouped.group_hashes
    assert (hashes[:3] == hashes[3:6]).all()
    assert (hashes[:2] == hashes[6:]).all()
    assert len(np.unique(hashes)) == 3
    assert len(np.unique(read(tmp_path, path=all_of_it).group_hashes)) == 6


def test_the_same_texts_in_other_formats_have_the_same_hash(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    texts = [f"document {number}, with a comma\nand a line end" for number in range(50)]
    plain = Path(tiny.jsonl(tmp_path / "a.jsonl", *texts))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(plain.read_bytes()))
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["text"], *([text] for text in texts)])
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), tmp_path / "a.parquet")
    files = [plain, *(tmp_path / f"a.{suffix}" for suffix in ("jsonl.gz", "csv", "parquet"))]
    hashes = {read_splits(DataConfig(path=str(file)), str(tmp_path / "cache")).sha256() for file in files}
    assert len(hashes) == 1
    assert entries(tmp_path) == 4


def test_a_file_that_changes_while_it_is_read_is_told_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.jsonl"
    tiny.jsonl(path, "one")
    real = documents_module.read

    def changing(source: Source, fields: Fields) -> Iterator[Row]:
        tiny.jsonl(path, "another")
        return real(source, fields)

    monkeypatch.setattr(documents_module, "read", changing)
    with pytest.raises(UsageError, match=r"rows\.jsonl: changed while it was read"):
        read_documents([Source(str(path), ".jsonl")], tiny.TEXT, str(tmp_path / "cache"))
    monkeypatch.undo()
    tiny.jsonl(path, "one")
    assert read_documents([Source(str(path), ".jsonl")], tiny.TEXT, str(tmp_path / "cache"))[0] == "one"
