"""Paths, globs, links, saved data sets and names on the Hub -> what will be read, in which order, on which side."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets.arrow_writer import ArrowWriter

from domaintune.config.schema import DataConfig
from domaintune.data.finding import (
    Found,
    Source,
    find_files,
    find_sources,
    is_one_text,
    looks_like_hub_id,
    passed_over,
    suffix_of,
)
from domaintune.data.formats.choosing import fields_of
from domaintune.data.reading import read
from domaintune.errors import UsageError


def write(file: Path, content: str = "x") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content, encoding="utf-8")
    return file


def names(path: Path | str, relative_to: Path) -> list[str]:
    return [str(file.relative_to(relative_to)) for file in find_files(str(path)).usable]


def problem(path: Any, **settings: Any) -> str:
    with pytest.raises(UsageError) as caught:
        find_sources(DataConfig(path=path if isinstance(path, list) else str(path), **settings), "no cache")
    return str(caught.value)


def all_found(path: Any, **settings: Any) -> Found:
    return find_sources(DataConfig(path=path if isinstance(path, list) else str(path), **settings), "no cache")


def found(path: Any, **settings: Any) -> list[Source]:
    return all_found(path, **settings).sources


def texts(sources: list[Source]) -> list[tuple[str | None, str | None]]:
    """(side, text) of every row."""
    fields = fields_of(DataConfig())
    return [(source.side, row.record) for source in sources for row in read(source, fields)]


def data_set(*texts: str) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"text": list(texts)})


def hub_data_set(cache: Path, name: str, splits: Mapping[str, list[str]], config: str = "default") -> None:
    """A data set as `load_dataset` leaves it in its cache."""
    short = name.split("/")[1]
    folder = cache / name.replace("/", "___") / config / "0.0.0" / "0123abcd"
    folder.mkdir(parents=True)
    features = datasets.Features({"text": datasets.Value("string")})
    known = datasets.SplitDict(dataset_name=short)
    for split, rows in splits.items():
        with ArrowWriter(path=str(folder / f"{short}-{split}.arrow"), features=features) as writer:
            for text in rows:
                writer.write({"text": text})
            writer.finalize()
        known.add(datasets.SplitInfo(split, num_bytes=1, num_examples=len(rows), dataset_name=short))
    datasets.DatasetInfo(
        features=features, splits=known, config_name=config, dataset_name=short, builder_name="json", version="0.0.0"
    ).write_to_directory(str(folder))


def test_a_folder_is_searched_through_in_the_order_of_names(tmp_path: Path) -> None:
    usable = ["a/deep/y.txt", "a/z.md", "b.txt", "d.jsonl", "e.csv.gz", "f.parquet", "g.tsv", "h.json", "i.txt.gz"]
    for name in [*usable, "c.pdf", "none", "j.parquet.gz", "k.gz", "l.text"]:
        write(tmp_path / name)
    assert names(tmp_path, tmp_path) == usable


def test_what_begins_with_a_dot_is_hidden(tmp_path: Path) -> None:
    for name in ("seen.txt", ".hidden.txt", ".git/notes.txt", "sub/.cache/a.txt"):
        write(tmp_path / name)
    assert names(tmp_path, tmp_path) == ["seen.txt"]
    assert names(tmp_path / "*.txt", tmp_path) == ["seen.txt"]


def test_a_hidden_folder_that_is_named_itself_is_read(tmp_path: Path) -> None:
    write(tmp_path / ".notes" / "a.txt")
    assert names(tmp_path / ".notes", tmp_path) == [".notes/a.txt"]


def test_links_to_files_and_folders_are_followed(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere" / "a.txt")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "folder").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "notes" / "b.txt").symlink_to(tmp_path / "elsewhere" / "a.txt")
    assert names(tmp_path / "notes", tmp_path / "notes") == ["b.txt", "folder/a.txt"]


@pytest.mark.parametrize("pattern", ["", "**/*.txt"])
def test_a_loop_of_links_is_gone_once(tmp_path: Path, pattern: str) -> None:
    write(tmp_path / "a.txt")
    write(tmp_path / "sub" / "b.txt")
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    (tmp_path / "sub" / "self").symlink_to(tmp_path / "sub")
    assert sorted(Path(file).name for file in find_files(str(tmp_path / pattern)).usable) == ["a.txt", "b.txt"]


def test_a_folder_that_is_called_like_a_file_is_a_folder(tmp_path: Path) -> None:
    write(tmp_path / "x.txt" / "inside.md")
    assert names(tmp_path / "x.txt", tmp_path) == ["x.txt/inside.md"]
    assert names(tmp_path, tmp_path) == ["x.txt/inside.md"]


def test_a_glob_takes_usable_files_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("b1.txt", "a1.txt", "a2.md", "a3.pdf", "deep/a4.txt"):
        write(tmp_path / name)
    (tmp_path / "a5.txt").mkdir()
    assert names(tmp_path / "a*", tmp_path) == ["a1.txt", "a2.md"]
    assert names(tmp_path / "**" / "a*.txt", tmp_path) == ["a1.txt", "deep/a4.txt"]
    assert names(tmp_path / "d*" / "**", tmp_path) == ["deep/a4.txt"]
    assert names(tmp_path / "**" / "deep" / "?4.*", tmp_path) == ["deep/a4.txt"]


def test_a_folder_name_with_glob_characters_is_a_folder(tmp_path: Path) -> None:
    write(tmp_path / "notes [2024]" / "a.txt")
    assert names(tmp_path / "notes [2024]", tmp_path) == ["notes [2024]/a.txt"]


def test_a_glob_may_stand_behind_such_a_folder(tmp_path: Path) -> None:
    write(tmp_path / "[x]" / "deep" / "a.txt")
    assert names(tmp_path / "[x]" / "*" / "*.txt", tmp_path) == ["[x]/deep/a.txt"]
    assert names(tmp_path / "[x]" / "**" / "*.txt", tmp_path) == ["[x]/deep/a.txt"]


def test_files_that_are_typed_with_commas_are_told_to_be_a_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a.txt")
    write(tmp_path / "b.txt")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"several are a list in brackets: '\[a.txt,b.txt\]'"):
        find_files("a.txt,b.txt")
    with pytest.raises(UsageError) as caught:
        find_files("a.txt,c.txt")
    assert "brackets" not in str(caught.value)


@pytest.mark.parametrize(("name", "kind"), [("a.ndjson", ".jsonl"), ("a.iob.gz", ".conll"), ("a.conllu", ".conll")])
def test_other_endings_of_the_same_kinds(tmp_path: Path, name: str, kind: str) -> None:
    [source] = found(write(tmp_path / name))
    assert source.kind == kind


def test_the_home_folder_can_be_written_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "texts" / "only.txt")
    write(tmp_path / "book.txt")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert names("~/texts", tmp_path) == ["texts/only.txt"]
    assert is_one_text("~/book.txt")


def test_an_ending_in_capitals_makes_no_difference(tmp_path: Path) -> None:
    [source] = found(write(tmp_path / "UPPER.CSV.GZ"))
    assert (source.kind, source.gzipped) == (".csv", True)
    assert is_one_text(str(write(tmp_path / "BOOK.TXT")))


def test_only_a_single_text_file_is_one_text(tmp_path: Path) -> None:
    book = str(write(tmp_path / "book.txt"))
    assert is_one_text(book)
    assert is_one_text([book])
    assert is_one_text(str(write(tmp_path / "packed.txt.gz")))
    others = [str(tmp_path), [book, book], str(tmp_path / "*.txt"), str(write(tmp_path / "notes.md")), None]
    assert [other for other in others if is_one_text(other)] == []


def test_a_list_is_read_in_its_own_order(tmp_path: Path) -> None:
    files = [write(tmp_path / "b.txt"), write(tmp_path / "a.md"), write(tmp_path / "sub" / "c.txt")]
    sources = found([str(files[0]), str(tmp_path / "sub"), str(tmp_path / "*.md")])
    assert [source.name for source in sources] == [str(files[0]), str(files[2]), str(files[1])]


def test_validation_and_test_paths_give_the_side(tmp_path: Path) -> None:
    a, b, c, d = (str(write(tmp_path / f"{name}.txt")) for name in "abcd")
    sources = found(a, val_path=[b, c], test_path=d)
    assert [(source.name, source.side) for source in sources] == [(a, None), (b, "val"), (c, "val"), (d, "test")]


def test_a_wrong_path_is_told_with_its_setting(tmp_path: Path) -> None:
    good = str(write(tmp_path / "a.txt"))
    gone = str(tmp_path / "gone.txt")
    assert problem([good, gone]) == f"data.path={gone}: no such file or folder (from {Path.cwd()})"
    assert problem(good, val_path=gone).startswith(f"data.val_path={gone}: ")
    assert problem(good, test_path=gone).startswith(f"data.test_path={gone}: ")


def test_the_same_bytes_have_the_same_hash_wherever_they_lie(tmp_path: Path) -> None:
    first, second, other = (write(tmp_path / f"{name}.txt", text) for name, text in ("ax", "bx", "cy"))
    assert Source(str(first), ".txt").sha256 == Source(str(second), ".txt").sha256
    assert Source(str(first), ".txt").sha256 != Source(str(other), ".txt").sha256


def test_a_saved_data_set_is_read(tmp_path: Path) -> None:
    data_set("one", "two").save_to_disk(str(tmp_path / "saved"))
    [source] = found(tmp_path / "saved")
    assert source.name == f"{tmp_path / 'saved'} (train)"
    assert texts([source]) == [(None, "one"), (None, "two")]


def test_saved_splits_serve_as_what_they_are(tmp_path: Path) -> None:
    splits = {"train": data_set("a"), "validation": data_set("b"), "test": data_set("c"), "extra": data_set("d")}
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "saved"))
    assert texts(found(tmp_path / "saved")) == [(None, "a"), ("val", "b"), ("test", "c")]


def test_a_path_of_its_own_goes_before_a_published_split(tmp_path: Path) -> None:
    splits = {"train": data_set("a"), "dev": data_set("b"), "test": data_set("c")}
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "saved"))
    own = write(tmp_path / "own.md", "mine")
    assert texts(found(tmp_path / "saved", val_path=str(own))) == [(None, "a"), ("test", "c"), ("val", "mine")]


def test_as_validation_path_a_data_set_gives_its_validation_split(tmp_path: Path) -> None:
    datasets.DatasetDict({"train": data_set("a"), "validation": data_set("b")}).save_to_disk(str(tmp_path / "saved"))
    data_set("c").save_to_disk(str(tmp_path / "single"))
    text = write(tmp_path / "own.md", "mine")
    sources = found(text, val_path=str(tmp_path / "saved"), test_path=str(tmp_path / "single"))
    assert texts(sources) == [(None, "mine"), ("val", "b"), ("test", "c")]


def test_a_data_set_without_the_split_that_is_wanted_names_those_it_has(tmp_path: Path) -> None:
    datasets.DatasetDict({"left": data_set("a"), "right": data_set("b")}).save_to_disk(str(tmp_path / "saved"))
    told = f"data.path={tmp_path / 'saved'}: no train split; there are left, right; data.split=left takes one of them"
    assert problem(tmp_path / "saved") == told
    assert texts(found(tmp_path / "saved", split="right")) == [(None, "b")]
    assert "no middle split; there are left, right" in problem(tmp_path / "saved", split="middle")
    with pytest.raises(UsageError, match="only a data set, saved or on the Hub, has splits"):
        find_sources(DataConfig(path=str(write(tmp_path / "a.txt")), split="left"), str(tmp_path))


def test_data_sets_with_other_texts_have_other_hashes(tmp_path: Path) -> None:
    for name, text in (("a", "one"), ("b", "one"), ("c", "two")):
        data_set(text).save_to_disk(str(tmp_path / name))
    first, same, other = (found(tmp_path / name)[0].sha256 for name in "abc")
    assert first == same
    assert first != other


def test_a_saved_data_set_with_a_damaged_part_is_told(tmp_path: Path) -> None:
    data_set("one").save_to_disk(str(tmp_path / "saved"))
    [arrow] = (tmp_path / "saved").glob("*.arrow")
    arrow.write_bytes(b"nothing of the sort")
    assert problem(tmp_path / "saved").startswith(f"data.path={tmp_path / 'saved'}: not a whole saved data set (")


def test_a_folder_with_a_list_of_data_sets_is_no_saved_data_set(tmp_path: Path) -> None:
    """Other programs keep a dataset_info.json beside their files, with another content."""
    write(tmp_path / "dataset_info.json", "[]")
    write(tmp_path / "a.txt", "text")
    assert texts(found(tmp_path)) == [(None, "text")]


def test_a_data_set_of_the_hub_is_opened_from_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    hub_data_set(tmp_path, "someone/some_texts", {"train": ["a", "b"], "validation": ["c"]})
    sources = found("someone/some_texts")
    assert [source.name for source in sources] == ["someone/some_texts (train)", "someone/some_texts (validation)"]
    assert texts(sources) == [(None, "a"), (None, "b"), ("val", "c")]
    assert sources[0].sha256 != sources[1].sha256
    assert datasets.config.HF_HUB_OFFLINE is True, "as it was"


def test_a_subset_names_one_of_the_configurations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    hub_data_set(tmp_path, "someone/some_texts", {"train": ["english"]}, "en")
    hub_data_set(tmp_path, "someone/some_texts", {"train": ["deutsch"]}, "de")
    assert texts(found("someone/some_texts", subset="de")) == [(None, "deutsch")]
    assert "config 'fr'" in problem("someone/some_texts", subset="fr")


def test_a_name_that_is_neither_here_nor_on_the_hub_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    assert problem("someone/nothing") == (
        f"data.path=someone/nothing: no such file or folder (from {Path.cwd()}), and no data set "
        f"(the Hub: not asked, HF_HUB_OFFLINE is set; its cache: nothing)"
    )


def test_a_folder_here_goes_before_a_name_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "someone" / "texts" / "a.md", "here")
    monkeypatch.chdir(tmp_path)
    assert texts(found("someone/texts")) == [(None, "here")]


@pytest.mark.parametrize(
    ("path", "is_one"),
    [
        ("owner/name", True),
        ("owner/name-2.0_x", True),
        ("owner/name.jsonl", False),
        ("owner/name.txt.gz", False),
        ("name", False),
        ("a/b/c", False),
        ("./name", False),
        ("/owner/name", False),
        ("~/name", False),
    ],
)
def test_a_name_on_the_hub_has_one_slash_and_no_ending_of_a_file(path: str, is_one: bool) -> None:
    assert looks_like_hub_id(path) is is_one


def test_a_special_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    assert problem(tmp_path / "pipe.txt").endswith(f"{tmp_path / 'pipe.txt'}: neither a file nor a folder")
    write(tmp_path / "a.txt")
    assert names(tmp_path, tmp_path) == ["a.txt"]


def test_a_subset_goes_with_a_data_set_on_the_hub(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(UsageError, match=r"data\.subset=en: only a data set on the Hub"):
        find_sources(DataConfig(path=str(tmp_path / "a.txt"), subset="en"), str(tmp_path))


def test_a_cache_that_cannot_hold_the_embedded_corpus_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"paths\.cache=.*DOMAINTUNE_CACHE"):
        find_sources(DataConfig(), str(tmp_path / "file" / "cache"))


# What is found and not read.


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("a.PDF", ".pdf"),
        ("a.tar.gz", ".tar.gz"),
        ("A.TAR.BZ2", ".tar.bz2"),
        ("a.gz", ".gz"),
        ("a.2024.gz", ".gz"),
        ("Makefile", "no suffix"),
        ("version 1.2", "no suffix"),
        ("ends with a dot.", "no suffix"),
        ("a. Some sentence as a name", "no suffix"),
        ("notes.final.docx", ".docx"),
        ("a.mp3", ".mp3"),
        ("日記.ページ", ".ページ"),
    ],
)
def test_the_suffix_of_a_name(name: str, suffix: str) -> None:
    assert suffix_of(name) == suffix


@pytest.mark.parametrize("pattern", ["", "*", "**/*"])
def test_files_of_other_kinds_are_counted(tmp_path: Path, pattern: str) -> None:
    names = ["b.docx", "C.DOCX", "d.tar.gz", "e.parquet.gz", "Makefile", ".hidden.pdf", "a.txt"]
    for name in names:
        write(tmp_path / name)
    beside = all_found(tmp_path / pattern)
    assert dict(beside.other_files) == {".docx": 2, ".tar.gz": 1, ".parquet.gz": 1, "no suffix": 1}
    words = "5 files of other kinds (.docx 2, .parquet.gz 1, .tar.gz 1, no suffix 1)"
    assert passed_over(beside.other_files, beside.own_files) == words


def test_files_of_other_kinds_of_several_paths_are_added_up(tmp_path: Path) -> None:
    for name in ("a/a.txt", "a/b.pdf", "b/a.txt", "b/b.pdf"):
        write(tmp_path / name)
    beside = all_found([str(tmp_path / "a"), str(tmp_path / "b" / "*")], val_path=str(tmp_path / "a"))
    assert dict(beside.other_files) == {".pdf": 3}


def test_where_nothing_is_passed_over_nothing_is_said(tmp_path: Path) -> None:
    beside = all_found(write(tmp_path / "a.txt"))
    assert (beside.other_files, beside.own_files, beside.notes) == ({}, 0, [])
    assert passed_over({}, 0) == ""


def test_folders_that_a_glob_matches_are_told(tmp_path: Path) -> None:
    for name in ("a.txt", "deep/b.txt"):
        write(tmp_path / name)
    assert all_found(tmp_path / "*").notes == [f"{tmp_path}/*: 1 folder that it matches is not looked into"]
    assert all_found(tmp_path / "**").notes == []


OWN = [
    "labels.jsonl",
    "labels.jsonl.made_from.json",
    "logs/runs/a/result.json",
    "logs/runs/a/export/README.md",
    "logs/runs/a/export/tokenizer.json",
    "logs/runs/a/checkpoints/notes.txt",
    "logs/sweeps/s/leaderboard.csv",
    "logs/sweeps/s/report.html",
    "logs/sweeps/s/lr=1/output.log",
    "logs/sweeps/s/lr=1/export/config.json",
    "cache/documents/0123/contents.json",
    "cache/python-docs-3.12.1-2.jsonl",
]


def home(folder: Path) -> Path:
    """A folder with texts and with what the program has written beside them."""
    for name in ["a.csv", "logs/runs/a/mine.txt", "project/config.yaml", "project/result.json", *OWN]:
        write(folder / name)
    for run in ("logs/runs/a", "logs/sweeps/s/lr=1"):
        write(folder / run / "config.yaml")
        write(folder / run / "result.json", '{"status": "finished"}')
    write(folder / "logs/sweeps/s/sweep.json", '{"trials": {}}')
    write(folder / "cache/documents/0123/contents.json", '{"key": {}, "sizes": {}}')
    write(folder / "project/result.json", "[]")
    return folder


@pytest.mark.parametrize("pattern", ["", "**", "**/*.*"])
def test_what_the_program_wrote_is_not_read(tmp_path: Path, pattern: str) -> None:
    beside = all_found(home(tmp_path) / pattern)
    read = [str(Path(source.name).relative_to(tmp_path)) for source in beside.sources]
    assert read == ["a.csv", "logs/runs/a/mine.txt", "project/result.json"]
    assert dict(beside.other_files) == {".yaml": 1}
    assert beside.own_files == len(OWN) + 4
    assert "16 files that this program wrote" in passed_over(beside.other_files, beside.own_files)


@pytest.mark.parametrize("pattern", ["*.json*", "logs/*/*/*.json", "logs/*/*/export/*", "logs/runs/a/export"])
def test_a_folder_of_nothing_else_is_told(tmp_path: Path, pattern: str) -> None:
    home(tmp_path)
    if pattern.endswith("export"):
        assert names(tmp_path / pattern, tmp_path) == [f"{pattern}/README.md", f"{pattern}/tokenizer.json"]
    else:
        assert "that this program wrote; usable are" in problem(tmp_path / pattern)


def test_predictions_that_are_named_themselves_are_read_and_told(tmp_path: Path) -> None:
    file = home(tmp_path) / "labels.jsonl"
    beside = all_found([str(file), str(tmp_path / "a.csv")])
    assert [source.name for source in beside.sources] == [str(file), str(tmp_path / "a.csv")]
    assert beside.notes == [f"{file} was written by python scripts/predict.py; it is read since it is named itself"]


@pytest.mark.parametrize(("format", "beside"), [("labels", "README.md"), ("pairs", "a.txt"), ("entities", "README.md")])
def test_a_text_beside_a_table_is_of_another_kind_where_columns_are_wanted(
    tmp_path: Path, format: str, beside: str
) -> None:
    write(tmp_path / "set" / "rows.jsonl")
    write(tmp_path / "set" / beside)
    here = all_found(tmp_path / "set", format=format)
    assert [Path(source.name).name for source in here.sources] == ["rows.jsonl"]
    assert here.other_files == {Path(beside).suffix: 1}
    assert len(all_found(tmp_path / "set", format="text").sources) == 2
    assert len(all_found(tmp_path / "set" / beside, format=format).sources) == 1, "it was named itself"
