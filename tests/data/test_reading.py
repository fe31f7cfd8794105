import json
from pathlib import Path

import pytest

from domaintune.config import UsageError
from domaintune.data.reading import Document, find_files, read_documents


def write(file: Path, content: str | bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def texts(path: Path | str, **settings: str) -> list[str]:
    return [document.text for document in read_documents(str(path), **settings)]


def problem(path: Path | str, **settings: str) -> str:
    with pytest.raises(UsageError) as caught:
        read_documents(str(path), **settings)
    return str(caught.value)


def test_a_markdown_file_is_one_document(tmp_path: Path) -> None:
    file = write(tmp_path / "notes.md", "# Title\n\nBody.\n")
    assert read_documents(str(file)) == [Document("# Title\n\nBody.", str(file))]


def test_a_single_txt_file_is_read_by_paragraphs_named_by_their_first_line(tmp_path: Path) -> None:
    file = write(tmp_path / "book.txt", "one\nstill one\n\n\n  \ntwo\n\nthree")
    assert read_documents(str(file)) == [
        Document("one\nstill one", f"{file}:1"),
        Document("two", f"{file}:6"),
        Document("three", f"{file}:8"),
    ]


def test_unit_line_names_each_line_by_its_number(tmp_path: Path) -> None:
    file = write(tmp_path / "lines.txt", "a\n\nb\nc\n")
    assert read_documents(str(file), unit="line") == [
        Document("a", f"{file}:1"),
        Document("b", f"{file}:3"),
        Document("c", f"{file}:4"),
    ]


def test_unit_file_keeps_a_single_txt_whole(tmp_path: Path) -> None:
    file = write(tmp_path / "book.txt", "one\n\ntwo\n")
    assert read_documents(str(file), unit="file") == [Document("one\n\ntwo", str(file))]


def test_unit_paragraph_reaches_into_the_files_of_a_folder(tmp_path: Path) -> None:
    write(tmp_path / "a.md", "1\n\n2")
    write(tmp_path / "b.txt", "3\n\n4")
    assert texts(tmp_path, unit="paragraph") == ["1", "2", "3", "4"]


def test_a_folder_is_searched_through_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.md", "a/deep/y.txt", "c.pdf", "d.jsonl"):
        write(tmp_path / name, json.dumps({"text": name}) if name.endswith("jsonl") else name)
    assert texts(tmp_path) == ["a/deep/y.txt", "a/z.md", "b.txt", "d.jsonl"]


def test_a_folder_with_one_txt_file_is_read_by_files(tmp_path: Path) -> None:
    write(tmp_path / "only.txt", "one\n\ntwo")
    assert texts(tmp_path) == ["one\n\ntwo"]


def test_a_folder_below_the_home_folder_is_read_like_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "texts" / "only.txt", "one\n\ntwo")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert texts("~/texts") == texts(tmp_path / "texts") == ["one\n\ntwo"]


def test_an_ending_in_capitals_makes_no_difference(tmp_path: Path) -> None:
    lower, upper = write(tmp_path / "lower.txt", "one\n\ntwo"), write(tmp_path / "UPPER.TXT", "one\n\ntwo")
    assert texts(upper) == texts(lower) == ["one", "two"]


def test_a_glob_takes_usable_files_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("b1.txt", "a1.txt", "a2.md", "a3.pdf", "deep/a4.txt"):
        write(tmp_path / name, name)
    assert texts(tmp_path / "a*") == ["a1.txt", "a2.md"]
    assert texts(tmp_path / "**" / "a*.txt") == ["a1.txt", "deep/a4.txt"]


def test_a_folder_name_with_glob_characters_is_a_folder(tmp_path: Path) -> None:
    write(tmp_path / "notes [2024]" / "a.txt", "inside")
    assert texts(tmp_path / "notes [2024]") == ["inside"]


def test_jsonl_rows_are_documents_named_by_their_line(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.jsonl", '{"text": "a", "n": 1}\n\n{"text": "b"}\n')
    assert read_documents(str(file)) == [Document("a", f"{file}:1"), Document("b", f"{file}:3")]


def test_text_column_names_the_field_of_a_row(tmp_path: Path) -> None:
    file = write(tmp_path / "rows.jsonl", '{"text": "no", "body": "yes"}')
    assert texts(file, text_column="body") == ["yes"]


@pytest.mark.parametrize("line_end", ["\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\x1c"])
def test_a_unicode_line_end_inside_a_json_string_does_not_split_the_row(tmp_path: Path, line_end: str) -> None:
    file = tmp_path / "rows.jsonl"
    row = json.dumps({"text": f"a{line_end}b"}, ensure_ascii=line_end < " ")
    write(file, f'{row}\n{{"text": "c"}}')
    assert texts(file) == [f"a{line_end}b", "c"]


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.jsonl"])
def test_a_byte_order_mark_is_no_text(tmp_path: Path, name: str) -> None:
    content = '{"text": "word"}' if name.endswith("jsonl") else "word"
    assert texts(write(tmp_path / name, b"\xef\xbb\xbf" + content.encode())) == ["word"]


def test_windows_and_old_mac_line_ends_become_newlines(tmp_path: Path) -> None:
    assert texts(write(tmp_path / "a.txt", b"one\r\nmore\r\n\r\ntwo\rmore")) == ["one\nmore", "two\nmore"]


def test_blank_documents_are_left_out(tmp_path: Path) -> None:
    assert texts(write(tmp_path / "rows.jsonl", '{"text": ""}\n{"text": " \\n"}\n{"text": "a"}')) == ["a"]


def test_a_missing_path_is_named_with_the_place_it_was_looked_for(tmp_path: Path) -> None:
    message = problem(tmp_path / "nowhere.txt")
    assert str(tmp_path / "nowhere.txt") in message
    assert str(Path.cwd()) in message


def test_a_glob_without_matches_is_told(tmp_path: Path) -> None:
    assert str(tmp_path / "*.txt") in problem(tmp_path / "*.txt")


def test_a_glob_that_matches_nothing_usable_says_what_is(tmp_path: Path) -> None:
    write(tmp_path / "a.pdf", "x")
    assert ".jsonl" in problem(tmp_path / "*.pdf")


@pytest.mark.parametrize("content", [b"", b" \n\n\t\n", b"\xef\xbb\xbf"])
def test_a_file_without_text_is_named(tmp_path: Path, content: bytes) -> None:
    file = write(tmp_path / "empty.txt", content)
    assert str(file) in problem(file)


def test_a_folder_without_usable_files_says_what_is_usable(tmp_path: Path) -> None:
    write(tmp_path / "a.pdf", "x")
    message = problem(tmp_path)
    assert str(tmp_path) in message
    assert ".txt, .md, .jsonl" in message


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "a.pdf", "x")
    with pytest.raises(UsageError, match=r"\.pdf"):
        find_files(str(file))


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_bytes_that_are_not_utf8_are_told_with_file_and_offset(tmp_path: Path, start: bytes) -> None:
    message = problem(write(tmp_path / "latin.txt", start + b"caf\xe9 au lait"))
    assert str(tmp_path / "latin.txt") in message
    assert f"byte {len(start) + 3} (0xe9)" in message


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("{not json", "not JSON"),
        ('["a"]', "must be an object"),
        ('"a"', "must be an object"),
        ('{"body": "a"}', "no field 'text'; it has 'body'; set data.text_column"),
        ('{"text": null}', "must be a string, not NoneType"),
        ('{"text": 5}', "must be a string, not int"),
    ],
)
def test_a_damaged_jsonl_row_is_told_with_file_and_line(tmp_path: Path, row: str, words: str) -> None:
    message = problem(write(tmp_path / "rows.jsonl", f'{{"text": "fine"}}\n\n{row}\n'))
    assert f"{tmp_path / 'rows.jsonl'}, line 3:" in message
    assert words in message


def test_half_of_a_surrogate_pair_in_a_jsonl_row_is_told_with_its_line(tmp_path: Path) -> None:
    """JSON can spell it, UTF-8 and tokenizers can't."""
    message = problem(write(tmp_path / "rows.jsonl", '{"text": "fine"}\n{"text": "half \\ud83d emoji"}\n'))
    assert f"{tmp_path / 'rows.jsonl'}, line 2:" in message
