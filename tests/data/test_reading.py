"""Files of every kind -> rows with their text, their place and their group."""

import csv
import gzip
import io
import json
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from domaintune.config.schema import DataConfig
from domaintune.data.documents import read_documents
from domaintune.data.finding import Source, find_sources
from domaintune.data.formats.choosing import fields_of
from domaintune.data.reading import Row, read
from domaintune.errors import UsageError

PLAIN = fields_of(DataConfig())
MB = 10**6


def write(file: Path, content: str | bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    raw = content.encode() if isinstance(content, str) else content
    file.write_bytes(gzip.compress(raw) if file.suffix == ".gz" else raw)
    return file


def rows(path: Path, **settings: Any) -> list[Row]:
    config = DataConfig(path=str(path), **settings)
    fields = fields_of(config)
    return [row for source in find_sources(config, "no cache").sources for row in read(source, fields)]


def texts(path: Path, **settings: Any) -> list[str | None]:
    return [row.record for row in rows(path, **settings)]


# One corpus in every format.

TEXTS = ['One line,\nthe second "quoted".', "Größe – 日本語 😀\u2028 a\ttab", "  led in by blanks", "NA", "Last."]


def as_paragraphs(texts: list[str]) -> str:
    return "\n\n".join(texts) + "\n"


def as_lines(texts: list[str], ascii_only: bool = False) -> str:
    return "".join(json.dumps({"n": 1, "text": text}, ensure_ascii=ascii_only) + "\n" for text in texts)


def as_table(texts: list[str], separator: str = ",") -> str:
    written = io.StringIO()
    table = csv.writer(written, delimiter=separator)
    table.writerows([["n", "text"], *([str(number), text] for number, text in enumerate(texts))])
    return written.getvalue()


def parquet(file: Path, columns: dict[str, Any], **settings: Any) -> Path:
    pq.write_table(pa.table(columns), file, **settings)
    return file


def saved(folder: Path, texts: list[str]) -> Path:
    datasets.Dataset.from_dict({"n": list(range(len(texts))), "text": texts}).save_to_disk(str(folder))
    return folder


WRITERS: dict[str, Callable[[Path], Path]] = {
    **{
        name: lambda folder, name=name, make=make: write(folder / name, make(TEXTS))  # type: ignore[misc]
        for ending in ("", ".gz")
        for name, make in {
            f"texts.txt{ending}": as_paragraphs,
            f"texts.md{ending}": as_paragraphs,
            f"texts.jsonl{ending}": as_lines,
            f"escaped.jsonl{ending}": lambda texts: as_lines(texts, ascii_only=True),
            f"list.json{ending}": lambda texts: json.dumps([{"text": text} for text in texts]),
            f"indented.json{ending}": lambda texts: json.dumps([{"text": text} for text in texts], indent=2),
            f"lines.json{ending}": as_lines,
            f"texts.csv{ending}": as_table,
            f"texts.tsv{ending}": lambda texts: as_table(texts, "\t"),
        }.items()
    },
    "texts.parquet": lambda folder: parquet(folder / "texts.parquet", {"n": range(5), "text": TEXTS}),
    "large.parquet": lambda folder: parquet(folder / "a.parquet", {"text": pa.array(TEXTS, pa.large_string())}),
    "groups.parquet": lambda folder: parquet(folder / "a.parquet", {"text": TEXTS}, row_group_size=2),
    "coded.parquet": lambda folder: parquet(folder / "a.parquet", {"text": pa.array(TEXTS).dictionary_encode()}),
    "saved data set": lambda folder: saved(folder / "saved", TEXTS),
}


@pytest.mark.parametrize("name", WRITERS)
def test_the_same_texts_are_the_same_documents_in_every_format(tmp_path: Path, name: str) -> None:
    path = WRITERS[name](tmp_path)
    config = DataConfig(path=str(path), unit="paragraph")
    documents = read_documents(find_sources(config, "no cache").sources, fields_of(config), str(tmp_path / "cache"))
    assert list(documents.records(0, len(documents))) == TEXTS


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.jsonl", "a.json", "lines.json", "a.csv", "a.tsv"])
def test_a_byte_order_mark_is_no_text(tmp_path: Path, name: str) -> None:
    contents = {"a.jsonl": '{"text": "word"}', "lines.json": '{"text": "word"}', "a.json": '[{"text": "word"}]'}
    content = contents.get(name, "text\nword" if name[1:] in (".csv", ".tsv") else "word")
    assert texts(write(tmp_path / name, b"\xef\xbb\xbf" + content.encode())) == ["word"]


# Text files.


def test_a_markdown_file_is_one_document(tmp_path: Path) -> None:
    assert rows(write(tmp_path / "notes.md", "# Title\n\nBody.\n")) == [Row(1, "# Title\n\nBody.")]


@pytest.mark.parametrize("name", ["book.txt", "BOOK.TXT", "book.txt.gz"])
def test_a_single_txt_file_is_read_by_paragraphs_placed_by_their_first_line(tmp_path: Path, name: str) -> None:
    file = write(tmp_path / name, "\none\nstill one\n\n\n  \ntwo\n\nthree")
    assert rows(file) == [Row(2, "one\nstill one"), Row(7, "two"), Row(9, "three")]


def test_a_folder_with_one_txt_file_is_read_by_files(tmp_path: Path) -> None:
    write(tmp_path / "only.txt", "one\n\ntwo")
    assert texts(tmp_path) == ["one\n\ntwo"]


def test_unit_line_places_each_line_by_its_number(tmp_path: Path) -> None:
    file = write(tmp_path / "lines.txt", "a\n\nb\n c \n")
    assert rows(file, unit="line") == [Row(1, "a"), Row(3, "b"), Row(4, " c ")]


def test_unit_file_keeps_a_single_txt_whole(tmp_path: Path) -> None:
    assert rows(write(tmp_path / "book.txt", "one\n\ntwo\n"), unit="file") == [Row(1, "one\n\ntwo")]


def test_unit_paragraph_reaches_into_the_files_of_a_folder(tmp_path: Path) -> None:
    write(tmp_path / "a.md", "1\n\n2")
    write(tmp_path / "b.txt", "3\n\n4")
    assert rows(tmp_path, unit="paragraph") == [Row(1, "1"), Row(3, "2"), Row(1, "3"), Row(3, "4")]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_of_every_system_are_the_same(tmp_path: Path, end: str) -> None:
    file = write(tmp_path / "a.txt", end.join(["one", "more", "", "two", "more"]))
    assert rows(file) == [Row(1, "one\nmore"), Row(4, "two\nmore")]
    assert rows(file, unit="line")[2:] == [Row(4, "two"), Row(5, "more")]


@pytest.mark.parametrize("sign", ["\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\x1c"])
def test_only_line_ends_end_a_line(tmp_path: Path, sign: str) -> None:
    """Python's str.splitlines() knows more of them, and every other tool would count other lines."""
    assert rows(write(tmp_path / "a.txt", f"a{sign}b\nc"), unit="line") == [Row(1, f"a{sign}b"), Row(2, "c")]
    written = json.dumps({"text": f"a{sign}b"}, ensure_ascii=sign < " ")
    assert rows(write(tmp_path / "a.jsonl", f'{written}\n{{"text": "c"}}')) == [Row(1, f"a{sign}b"), Row(2, "c")]
    assert rows(write(tmp_path / "a.csv", f'text\n"a{sign}b"\nc')) == [Row(2, f"a{sign}b"), Row(3, "c")]


# Tables.


def test_jsonl_rows_are_placed_by_their_line(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.jsonl", '\n{"text": "a", "n": 1}\r\n\r\n  \n{"text": "b"}')
    assert rows(file) == [Row(2, "a"), Row(5, "b")]


@pytest.mark.parametrize("content", ['[{"text": "a"},\n\n{"text": "b"}]', '{"text": "a"}\n\n{"text": "b"}\n'])
def test_json_rows_are_placed_by_their_number(tmp_path: Path, content: str) -> None:
    assert rows(write(tmp_path / "rows.json", content)) == [Row(1, "a"), Row(2, "b")]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_csv_rows_are_placed_by_the_line_they_begin_at(tmp_path: Path, end: str) -> None:
    lines = ["", "text,n", '"a', "", 'b",1', "c,2", "", '"d', 'say ""so""",3', "e,4"]
    file = write(tmp_path / "rows.csv", end.join(lines) + end)
    assert rows(file) == [Row(3, "a\n\nb"), Row(6, "c"), Row(8, 'd\nsay "so"'), Row(10, "e")]


def test_parquet_rows_are_placed_by_their_number_across_row_groups(tmp_path: Path) -> None:
    file = parquet(tmp_path / "a.parquet", {"text": [str(n) for n in range(1, 251)]}, row_group_size=120)
    assert rows(file) == [Row(n, str(n)) for n in range(1, 251)]


def test_rows_of_a_saved_data_set_are_placed_by_their_number(tmp_path: Path) -> None:
    assert rows(saved(tmp_path / "saved", [str(n) for n in range(1, 251)])) == [Row(n, str(n)) for n in range(1, 251)]


def table(folder: Path, kind: str, objects: list[dict[str, Any]]) -> Path:
    """The same rows in a file of this kind; a .csv takes strings only."""
    file = folder / f"rows{kind}"
    if kind == ".parquet":
        pq.write_table(pa.Table.from_pylist(objects), file)
    elif kind == ".jsonl":
        write(file, "".join(json.dumps(row) + "\n" for row in objects))
    elif kind == ".json":
        write(file, json.dumps(objects))
    elif kind == ".csv":
        with file.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(objects[0]))
            writer.writeheader()
            writer.writerows(objects)
    else:
        datasets.Dataset.from_list(objects).save_to_disk(str(file))
    return file


KINDS = [".jsonl", ".json", ".csv", ".parquet", " (a saved data set)"]
NESTED = [kind for kind in KINDS if kind != ".csv"]


@pytest.mark.parametrize("kind", KINDS)
def test_text_column_names_the_field(tmp_path: Path, kind: str) -> None:
    file = table(tmp_path, kind, [{"text": "no", "body": "yes"}, {"text": "no", "body": "and yes"}])
    assert texts(file, text_column="body") == ["yes", "and yes"]


@pytest.mark.parametrize("kind", KINDS)
def test_group_column_names_the_group(tmp_path: Path, kind: str) -> None:
    file = table(tmp_path, kind, [{"text": "a", "by": "ann", "year": 7}, {"text": "b", "by": "bob", "year": 8}])
    assert [row.group for row in rows(file, group_column="by")] == ["ann", "bob"]
    assert [row.group for row in rows(file, group_column="year")] == ["7", "8"]
    assert [row.group for row in rows(file)] == [None, None]


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_without_text_is_given_as_none(tmp_path: Path, kind: str) -> None:
    file = table(tmp_path, kind, [{"text": "a", "n": 1}, {"text": None, "n": 2}, {"text": " \n", "n": 3}])
    assert texts(file) == ["a", None, None]


PAIRS = [{"prompt": "2+2? ", "completion": "4"}, {"prompt": "", "completion": "Größe"}]


@pytest.mark.parametrize("kind", KINDS)
def test_prompt_and_completion_are_one_object(tmp_path: Path, kind: str) -> None:
    file = table(tmp_path, kind, [{"n": 1, **pair} for pair in PAIRS])
    assert texts(file, format="instructions") == PAIRS


@pytest.mark.parametrize("kind", KINDS)
def test_columns_renames_prompt_and_completion(tmp_path: Path, kind: str) -> None:
    file = table(tmp_path, kind, [{"q": pair["prompt"], "a": pair["completion"], "prompt": "no"} for pair in PAIRS])
    given = texts(file, format="instructions", columns={"prompt": "q", "completion": "a"})
    assert given == PAIRS


CHAT = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "2+2?"}]
CHAT += [{"role": "assistant", "content": "4"}]


@pytest.mark.parametrize("name", ["messages", "conversation"])
@pytest.mark.parametrize("kind", NESTED)
def test_messages_keep_role_and_content_alone(tmp_path: Path, kind: str, name: str) -> None:
    file = table(tmp_path, kind, [{name: [{"weight": 1, **turn} for turn in CHAT]}])
    [text] = texts(file, format="instructions", columns={"messages": name})
    assert text == {"messages": CHAT}


@pytest.mark.parametrize("kind", NESTED)
def test_a_file_may_hold_pairs_and_messages(tmp_path: Path, kind: str) -> None:
    objects = [{**PAIRS[0], "messages": None}, {"prompt": None, "completion": None, "messages": CHAT}]
    given = texts(table(tmp_path, kind, objects), format="instructions")
    assert given == [PAIRS[0], {"messages": CHAT}]


def test_the_same_row_is_the_same_record_from_whatever_file(tmp_path: Path) -> None:
    """What its hash is taken of, which decides its side."""
    given = {kind: texts(table(tmp_path, kind, PAIRS), format="instructions") for kind in KINDS}
    reordered = [{"completion": pair["completion"], "prompt": pair["prompt"]} for pair in PAIRS]
    given["reordered"] = texts(table(tmp_path / "x", ".jsonl", reordered), format="instructions")
    assert len({json.dumps(each) for each in given.values()}) == 1


# Quotes.

GLUE = 'text\tlabel\n"so it\tpos\nbegins\tneg\nand so it ends"\tpos\nplain\tneg\n'
SWALLOWED = 'text,label\n"so it,pos\nbegins,neg\nand so it ends",pos\nplain,neg\n"two\nlines, and a comma",pos\n'


def noted(file: Path, **settings: Any) -> tuple[list[str | None], list[str]]:
    """The texts, and the notes on how they were read."""
    config = DataConfig(path=str(file), **settings)
    [source] = find_sources(config, "no cache").sources
    return [row.record for row in read(source, fields_of(config))], source.notes


def test_a_tsv_file_is_unquoted_where_only_that_gives_each_line_its_columns(tmp_path: Path) -> None:
    read_as, notes = noted(write(tmp_path / "a.tsv", GLUE))
    assert read_as == ['"so it', "begins", 'and so it ends"', "plain"]
    assert notes == [
        "quotes are read as letters: with line 2 as a spreadsheet would quote it, not every line has the header's "
        "columns; data.quoting=csv decides otherwise"
    ]
    assert noted(tmp_path / "a.tsv", quoting="none") == (read_as, [])
    assert noted(tmp_path / "a.tsv", quoting="csv") == (["so it\tpos\nbegins\tneg\nand so it ends", "plain"], [])


@pytest.mark.parametrize("name", ["a.tsv", "a.tsv.gz"])
def test_a_quoted_tsv_file_stays_quoted(tmp_path: Path, name: str) -> None:
    content = as_table(["one\ttab", "two\nlines", 'say "so"', "plain"], "\t")
    assert noted(write(tmp_path / name, content)) == (["one\ttab", "two\nlines", 'say "so"', "plain"], [])


@pytest.mark.parametrize("line", ['""\tpos', 'a ""b""\tpos', '"" a\tneg', '"\tneg', '"""\tneg', 'a "b" c\tpos'])
def test_other_quotes_say_nothing_of_a_writer_that_quotes(tmp_path: Path, line: str) -> None:
    read_as, _ = noted(write(tmp_path / "a.tsv", GLUE + line + "\n"))
    assert read_as == ['"so it', "begins", 'and so it ends"', "plain", line.split("\t")[0]]


def test_a_csv_row_that_takes_in_others_is_told(tmp_path: Path) -> None:
    read_as, notes = noted(write(tmp_path / "a.csv", SWALLOWED))
    assert read_as == ["so it,pos\nbegins,neg\nand so it ends", "plain", "two\nlines, and a comma"]
    assert notes == [
        "lines 2 to 4 are one row, since a quote opens a text that ends there, though each of these lines has 2 "
        "columns of its own. If they are rows, data.quoting=none reads quotes as letters"
    ]
    assert noted(tmp_path / "a.csv", quoting="csv") == (read_as, [])


def test_a_text_of_several_lines_is_no_row_that_takes_in_others(tmp_path: Path) -> None:
    content = as_table(["one\n\ntwo, three", "a\nb\nc", "a, b\nc, d"])
    assert noted(write(tmp_path / "a.csv", content))[1] == []
    assert noted(write(tmp_path / "one column.csv", 'text\n"one\ntwo"\nthree\n'))[1] == []


def test_a_column_may_be_called_by_what_parts_columns_elsewhere(tmp_path: Path) -> None:
    assert texts(write(tmp_path / "a.csv", "a;b\none\ntwo\n"), text_column="a;b") == ["one", "two"]


# Files of words.


def sentences(file: Path, content: str, **settings: Any) -> list[tuple[int, list[str], list[str]]]:
    found = rows(
        write(file, content), format="entities", **{"columns": {"tokens": "tokens", "tags": "tags"}, **settings}
    )
    return [(row.place, *row.record.values()) for row in found]


NBSP, NARROW, THIN, WIDE = "\u00a0", "\u202f", "\u2009", "\u3000"


@pytest.mark.parametrize("space", [NBSP, NARROW, THIN, WIDE, "\u0085", "\x0c", "\u2028"])
@pytest.mark.parametrize("apart", [" ", "  ", "\t"])
def test_only_tabs_and_plain_spaces_part_words(tmp_path: Path, space: str, apart: str) -> None:
    content = f"10{space}000{apart}B-SUM\n{space}{apart}O\n{space}a{space}{apart}O\n"
    assert sentences(tmp_path / "a.conll", content) == [
        (1, [f"10{space}000", space, f"{space}a{space}"], ["B-SUM", "O", "O"])
    ]


def test_of_several_columns_the_first_and_the_last_count(tmp_path: Path) -> None:
    content = f"10{NBSP}000 N x B-SUM\nNew York\tN\tB-LOC\n  led   in   O  \nend\tO\t \n"
    assert sentences(tmp_path / "a.conll", content) == [
        (1, [f"10{NBSP}000", "New York", "led", "end"], ["B-SUM", "B-LOC", "O", "O"])
    ]


def test_lines_that_are_no_words(tmp_path: Path) -> None:
    content = (
        "\ufeff-DOCSTART- -X- O\r\n\r\n# newdoc\r\n# text = It is O\r\n# sent_id=1\r\nIt\tX\tO\r\n#\tX\tO\r\n \t \r\n"
        "# id 5\tdomain=en\r\n#1 _ B-NUM\r\n# _ O\r\n\r\n# no words\r\n\r\n# O\r\n"
    )
    assert sentences(tmp_path / "a.conll", content) == [
        (6, ["It", "#"], ["O", "O"]),
        (10, ["#1", "#"], ["B-NUM", "O"]),
        (15, ["#"], ["O"]),
    ]


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        ("a\tO\n\nb\tO\n\tO\nc\tO\n", 4, "field 'tokens' holds an empty string"),
        ("a\tO\n# text = b\nb\tO\nc\tPERSON\n", 4, "the tag 'PERSON' is neither"),
        ("a\tO\nb\nc\tO\n", 2, "one column; a word and its tag are two"),
        (f"a O\n{NBSP}\nc O\n", 2, "one column; a word and its tag are two"),
        ("a\tO\nb\t\n", 2, "one column; a word and its tag are two"),
        ("a\tO\nb\0\tO\n", 2, "a NUL character"),
    ],
)
def test_what_is_wrong_with_a_word_is_told_with_its_line(tmp_path: Path, content: str, line: int, words: str) -> None:
    file = write(tmp_path / "a.tsv", content)
    with pytest.raises(UsageError, match=rf"a\.tsv, line {line}: {words}"):
        rows(file, format="entities", columns={"tokens": "tokens", "tags": "tags"}, strict=True)


def test_a_first_column_that_counts_words_is_told(tmp_path: Path) -> None:
    file = write(tmp_path / "a.tsv", "# http://x\t[2010]\n1\tAnn\tB-PER\n2\truns\tO\n3\t.\tO\n")
    assert noted(file, format="entities", columns={"tokens": "tokens", "tags": "tags"})[1] == [
        "line 2: the first column counts the words, and words are read from it"
    ]


# Names of classes in a parquet file.


def classes(file: Path, features: dict[str, Any], objects: dict[str, list[Any]], **settings: Any) -> list[Any]:
    """The rows of a parquet file as `datasets` writes it; those of the same set by save_to_disk are the same."""
    made = datasets.Dataset.from_dict(objects, features=datasets.Features(features))
    made.to_parquet(str(file))
    made.save_to_disk(str(file.with_suffix("")))
    assert texts(file, **settings) == texts(file.with_suffix(""), **settings)
    return texts(file, **settings)


TEXT = datasets.Value("string")


def test_names_of_classes_are_taken_from_a_parquet_file(tmp_path: Path) -> None:
    features = {"text": TEXT, "label": datasets.ClassLabel(names=["bad", "good"])}
    objects = {"text": ["a", "b", "c"], "label": [1, 0, -1]}
    found = classes(tmp_path / "a.parquet", features, objects, format="labels")
    assert [row and row["label"] for row in found] == ["good", "bad", None]


def test_names_of_classes_in_lists(tmp_path: Path) -> None:
    names = datasets.ClassLabel(names=["bad", "good", "far"])
    features = {"text": TEXT, "label": datasets.Sequence(names)}
    found = classes(tmp_path / "a.parquet", features, {"text": ["a", "b"], "label": [[2, 0], []]}, format="labels")
    assert [row["labels"] for row in found] == [["bad", "far"], []]


def test_names_of_tags(tmp_path: Path) -> None:
    features = {"tokens": datasets.Sequence(TEXT), "ner": datasets.LargeList(datasets.ClassLabel(names=["O", "B-X"]))}
    objects = {"tokens": [["a", "b"]], "ner": [[1, 0]]}
    found = classes(
        tmp_path / "a.parquet", features, objects, format="entities", columns={"tokens": "tokens", "tags": "ner"}
    )
    assert found == [{"tokens": ["a", "b"], "tags": ["B-X", "O"]}]


@pytest.mark.parametrize(
    "metadata",
    [
        b"no JSON",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"info": null}',
        b'{"info": {"features": []}}',
        b'{"info": {"features": {"label": 5}}}',
        b'{"info": {"features": {"label": {"_type": "ClassLabel"}}}}',
        b'{"info": {"features": {"label": {"_type": "ClassLabel", "names": [1, 2]}}}}',
        b'{"info": {"features": {"label": {"_type": "ClassLabel", "names": []}}}}',
        b"[" * 100_000,
    ],
)
def test_damaged_metadata_of_a_parquet_file_is_passed_over(tmp_path: Path, metadata: bytes) -> None:
    table = pa.table({"text": ["a", "b"], "label": [1, 0]}).replace_schema_metadata({b"huggingface": metadata})
    pq.write_table(table, tmp_path / "a.parquet")
    found = texts(tmp_path / "a.parquet", format="labels")
    assert [text["label"] for text in found] == ["1", "0"]


def test_texts_of_a_column_of_classes_stay_as_they_are(tmp_path: Path) -> None:
    features = {"features": {"label": {"_type": "ClassLabel", "names": ["bad", "good"]}}}
    metadata = {b"huggingface": json.dumps({"info": features}).encode()}
    table = pa.table({"text": ["a", "b"], "label": ["good", "bad"]}).replace_schema_metadata(metadata)
    pq.write_table(table, tmp_path / "a.parquet")
    found = texts(tmp_path / "a.parquet", format="labels")
    assert [text["label"] for text in found] == ["good", "bad"]


# Documents.


def test_notes_are_those_of_the_first_reading(tmp_path: Path) -> None:
    file = write(tmp_path / "a.tsv", GLUE)

    def notes(**settings: Any) -> list[str]:
        config = DataConfig(path=str(file), **settings)
        sources = find_sources(config, "no cache").sources
        return read_documents(sources, fields_of(config), str(tmp_path / "cache")).source_notes()

    assert [note.startswith(f"{file}: quotes are read as letters") for note in notes() + notes()] == [True, True]
    assert notes(quoting="csv") == [], "another entry of the cache"


def test_documents_know_their_places_and_what_was_left_out(tmp_path: Path) -> None:
    first = write(tmp_path / "a.jsonl", '{"text": "one"}\n\n{"text": null}\n{"text": "two"}\n')
    second = write(tmp_path / "b.csv", 'text,n\n"three\nlines\nlong",1\n"",2\nfour,3\n')
    config = DataConfig(path=str(tmp_path / "*.*"))
    documents = read_documents(find_sources(config, "no cache").sources, PLAIN, str(tmp_path / "cache"))
    assert [documents[number] for number in range(4)] == ["one", "two", "three\nlines\nlong", "four"]
    assert [documents.place(number) for number in range(4)] == [
        f"{first}:1",
        f"{first}:4",
        f"{second}:2",
        f"{second}:6",
    ]
    assert documents.left_out()["blank"]["places"] == [f"{first}:3", f"{second}:5"]


def test_a_source_is_read_again_only_where_it_changed(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", '{"text": "one"}\n')

    def folder(**settings: Any) -> Path:
        config = DataConfig(path=str(file), **settings)
        return read_documents(
            find_sources(config, "no cache").sources, fields_of(config), str(tmp_path / "cache")
        ).folder

    first = folder()
    assert folder() == first
    assert folder(group_column="text") != first
    write(file, '{"text": "two"}\n')
    assert folder() != first


# Streams.


def paragraphs() -> Iterator[str]:
    """20 MB: 40,000 texts of 500 characters."""
    return (f"{number} ".ljust(499, "é" if number % 100 == 0 else "x") for number in range(40_000))


def peak(file: Path, unit: str | None = None) -> tuple[int, int]:
    """The number of rows, and the most memory that Python held at once while they passed."""
    fields = fields_of(DataConfig(path=str(file), unit=unit))
    source = Source(str(file), "".join(file.suffixes).removesuffix(".gz"))
    tracemalloc.start()
    try:
        number = sum(row.record is not None for row in read(source, fields))
        return number, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv", "a.jsonl.gz"])
def test_a_file_is_read_as_a_stream(tmp_path: Path, name: str) -> None:
    line = {"a.txt": "{}\n\n", "a.csv": '"{}"\n'}.get(name, '{{"text": "{}"}}\n')
    content = "".join(
        [*(["text\n"] if name == "a.csv" else []), *(line.format(text) for text in paragraphs())]
    ).encode()
    assert len(content) > 20 * MB
    file = tmp_path / name
    file.write_bytes(gzip.compress(content, 1) if name.endswith(".gz") else content)
    number, memory = peak(file, "paragraph")
    assert number == 40_000
    assert memory < 8 * MB


def test_documents_are_written_as_a_stream(tmp_path: Path) -> None:
    """What stays in memory is a few numbers a document, not its text."""
    file = write(tmp_path / "a.txt", "\n\n".join(paragraphs()))
    tracemalloc.start()
    try:
        documents = read_documents([Source(str(file), ".txt")], fields_of(DataConfig(path=str(file))), str(tmp_path))
        memory = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(documents) == 40_000
    assert memory < 8 * MB
