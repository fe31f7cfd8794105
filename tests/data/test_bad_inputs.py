"""Files that are damaged, odd or not what they are called: a message with file and place, or a documented handling."""

import gzip
import json
import operator
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from domaintune.config.schema import DataConfig
from domaintune.data.splitting import Splits, check_sides, read_splits
from domaintune.errors import UsageError

NOBODY = 65534
LIMIT_SECONDS = 5
BIG = 50 * 10**6
MiB = 1 << 20

Make = Callable[[Path], dict[str, Any]]


@dataclass(frozen=True)
class Refused:
    """The pattern of the whole message; {file} is the file of the case, {folder} the folder it lies in.

    `by_rights`: only a user is refused who has to be given leave, which root need not.
    """

    message: str
    by_rights: bool = False


@dataclass(frozen=True)
class Read:
    """What is read: the texts in their order, and the places of the rows that were left out as blank."""

    texts: list[str]
    blank: tuple[int, ...] = ()


@dataclass(frozen=True)
class Odd:
    """A row that can't be used: left out under the reason, or refused at the place with data.strict=true."""

    reason: str
    place: str
    message: str


def file(name: str, content: str | bytes, **settings: Any) -> Make:
    def make(folder: Path) -> dict[str, Any]:
        raw = content.encode() if isinstance(content, str) else content
        (folder / name).write_bytes(raw)
        return {"path": str(folder / name), **settings}

    return make


def packed(name: str, content: bytes, cut: int | None = None) -> Make:
    return file(name, gzip.compress(content, mtime=0)[:cut])


def jsonl(*rows: Any, **settings: Any) -> Make:
    return file("a.jsonl", "".join(json.dumps(row) + "\n" for row in rows), **settings)


def instructions(*rows: Any) -> Make:
    return jsonl(*rows, format="instructions")


def parquet(columns: dict[str, Any], keep: Callable[[bytes], bytes] = lambda raw: raw, **settings: Any) -> Make:
    def make(folder: Path) -> dict[str, Any]:
        pq.write_table(pa.table(columns), folder / "a.parquet", compression="none", use_dictionary=False)
        (folder / "a.parquet").write_bytes(keep((folder / "a.parquet").read_bytes()))
        return {"path": str(folder / "a.parquet"), **settings}

    return make


def twice_a_column(folder: Path) -> dict[str, Any]:
    pq.write_table(pa.Table.from_arrays([pa.array(["a"])] * 2, names=["text", "text"]), folder / "a.parquet")
    return {"path": str(folder / "a.parquet")}


def latin_in_parquet(folder: Path) -> dict[str, Any]:
    text = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\4\0\0\0"), pa.py_buffer(b"caf\xe9")])
    pq.write_table(pa.table({"text": text}), folder / "a.parquet")
    return {"path": str(folder / "a.parquet")}


def tree(*files: str, **links: str) -> Make:
    """A folder `a` with these files, and links in it to what is named from there."""

    def make(folder: Path) -> dict[str, Any]:
        (folder / "a").mkdir()
        for name in files:
            (folder / "a" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "a" / name).write_text(f"text of {name}")
        for name, target in links.items():
            (folder / "a" / name.replace("_txt", ".txt")).symlink_to(target)
        return {"path": str(folder / "a")}

    return make


def link(target: str) -> Make:
    def make(folder: Path) -> dict[str, Any]:
        (folder / "a.txt").symlink_to(target)
        return {"path": str(folder / "a.txt")}

    return make


def locked(make: Make, *names: str) -> Make:
    """Nobody may read what is named."""

    def locking(folder: Path) -> dict[str, Any]:
        settings = make(folder)
        for name in names:
            (folder / name).chmod(0)
        return settings

    return locking


def path(name: str, **settings: Any) -> Make:
    return lambda folder: {"path": str(folder / name), **settings}


def pipe(folder: Path) -> dict[str, Any]:
    os.mkfifo(folder / "a.txt")
    return {"path": str(folder / "a.txt")}


def itself_as_validation(folder: Path) -> dict[str, Any]:
    settings = jsonl({"text": "a"}, {"text": "b"}, {"text": "c"})(folder)
    return {**settings, "val_path": settings["path"]}


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


def pair(prompt: str, completion: Any) -> dict[str, Any]:
    return {"prompt": prompt, "completion": completion}


WORDS = "".join(f"word{number} " for number in range(10_000))
LONG = (WORDS * (BIG // len(WORDS) + 1))[:BIG]
NUL = r"a NUL character; this is no text, or not in UTF-8"
NO_TEXT = r"no text in it"
NOTHING = r"{file}: no text in it that can be learnt from; left out are "
COLUMN = r"set data\.text_column"
NAMES = "; the first line of a table names its columns"
OBJECT = r'a row must be an object like {{"text": \.\.\.}}, not '
PARQUET = r"{file}: damaged, or not a parquet file \(.*\)"
WITHOUT = r" read from rows with columns, which a text file does not have"
LINK = r"a link that leads nowhere, or to what may not be read"
ABSENT = r"no such file or folder \(from .*\)"
LOCKED = r"can't be read \(Permission denied\)"
USABLE = r"usable are \.txt, \.md, \.conll, \.jsonl, .* with \.gz after it"
QUOTES = (
    r"; a field that begins with a quote must end with one, and a quote inside it is written twice\. Where quotes are "
    r"letters, data\.quoting=none reads them"
)
PARTED = r"a \.csv file is parted by commas, a \.tsv file by tabs"
RAGGED = r"; a text that holds the separator or a line end must stand in quotes"
NO_ENCODING = r"none of the usual encodings reads it as text\. If it is text, data\.encoding=NAME says .*"
CHAT = r"field 'messages' must be a list of objects with role and content"
COMPLETION = r"neither 'messages', nor 'prompt' and 'completion', nor 'instruction' and 'output'"


NO_LABELS = [None, float("nan"), " ", [None], "None", "NA", []]


def latin(line: int, byte: int, sign: str = "e9") -> Refused:
    return at(f"line {line}", rf"not UTF-8 at byte {byte} \(0x{sign}\); data\.encoding=windows-1252 would read it.*")


def at(place: str, what: str) -> Refused:
    return Refused(rf"{{file}}, {place}: {what}")


CASES: dict[str, tuple[Make, Refused | Read | Odd]] = {
    # Nothing in it.
    "an empty file": (file("a.txt", ""), Refused("{file}: " + NO_TEXT)),
    "an empty packed file": (packed("a.txt.gz", b""), Refused("{file}: " + NO_TEXT)),
    "blank lines only": (file("a.txt", " \n\n\t\n"), Refused("{file}: " + NO_TEXT)),
    "a blank file among others": (
        lambda folder: {"path": [each(folder)["path"] for each in (file("b.md", "\n\n"), file("c.md", "c"))]},
        Read(["c"], (1,)),
    ),
    "a byte order mark only": (file("a.txt", b"\xef\xbb\xbf"), Refused("{file}: " + NO_TEXT)),
    "an empty .jsonl": (file("a.jsonl", "\n\n"), Refused("{file}: " + NO_TEXT)),
    "an empty .json": (file("a.json", ""), Refused("{file}: " + NO_TEXT)),
    "an empty list": (file("a.json", "[]"), Refused("{file}: " + NO_TEXT)),
    "an empty .csv": (file("a.csv", ""), Refused("{file}: " + NO_TEXT)),
    "a header without rows": (file("a.csv", "text,n\n"), Refused("{file}: " + NO_TEXT)),
    "a parquet file without rows": (parquet({"text": pa.array([], pa.string())}), Refused("{file}: " + NO_TEXT)),
    "an empty folder": (tree(), Refused(rf"data\.path={{folder}}/a: the folder holds no usable file; {USABLE}")),
    "blank rows only": (
        jsonl(*[{"text": blank} for blank in ("", None, " \n", "\t", "", "", "")]),
        Refused(NOTHING + r"blank 7 \({file}:1, {file}:2, {file}:3, {file}:4, {file}:5, \.\.\.\): .*"),
    ),
    # Bytes that are no text.
    "a picture called .txt": (
        file("a.txt", b"\x89PNG\r\n\x1a\n\0\0"),
        at("line 1", rf"not UTF-8 at byte 0 \(0x89\); {NO_ENCODING}"),
    ),
    "a program called .txt": (file("a.txt", b"\x7fELF\x02\x01\x01\0\0\0\n\0"), at("line 1", NUL)),
    "a NUL in a paragraph": (file("a.txt", "one\n\ntwo\nth\0ree\n"), at("line 4", NUL)),
    "a NUL in a line": (file("a.txt", "one\n\ntwo\nth\0ree\n", unit="line"), at("line 4", NUL)),
    "a NUL in a file": (file("a.md", "\n\none\ntwo\0"), at("line 4", NUL)),
    "a NUL in a .csv": (file("a.csv", 'text\n"a\nb\0"\n'), at("line 3", NUL)),
    "a NUL in a .jsonl": (
        file("a.jsonl", '{"text": "a"}\n{"text": "\0"}\n'),
        at("line 2", r"not JSON at column 11 \(Invalid control.*\)"),
    ),
    "an escaped NUL in a .jsonl": (
        jsonl({"text": "a"}, {"text": "b\0"}),
        Odd("wrong type", "line 2", "field 'text' holds a NUL character"),
    ),
    "a NUL in a .json list": (
        file("a.json", '[{"text": "a"},\n{"text": "\0"}]'),
        at("line 2", r"not JSON at column 11 \(Invalid control.*\)"),
    ),
    "a NUL in parquet": (
        parquet({"text": ["a", "b\0"]}),
        Odd("wrong type", "row 2", "field 'text' holds a NUL character"),
    ),
    "Latin-1": (file("a.txt", b"caf\xe9 au lait"), latin(1, 3)),
    "Latin-1 behind a byte order mark": (file("a.txt", b"\xef\xbb\xbfcaf\xe9 au lait"), latin(1, 6)),
    "Latin-1 in a .jsonl": (file("a.jsonl", b'{"text": "a"}\n{"text": "caf\xe9"}\n'), latin(2, 27)),
    "Latin-1 in a .json": (file("a.json", b'[{"text": "a"},\n{"text": "caf\xe9"}]'), latin(2, 29)),
    "Latin-1 in a .csv": (file("a.csv", b"text\na\ncaf\xe9\n"), latin(3, 10)),
    "Latin-1 in a packed file": (
        packed("a.txt.gz", b"a\n\ncaf\xe9\n"),
        at("line 3", r"not UTF-8 at byte 6 of what is packed in it \(0xe9\); data\.encoding=windows-1252 would .*"),
    ),
    "Latin-1 in a packed file that is cut": (
        packed("a.txt.gz", b"caf\xe9 " + os.urandom(100_000), -50_000),
        Refused(r"{file}(, line 1)?: not (UTF-8|a whole gzip file).*"),
    ),
    "Latin-1 in parquet": (latin_in_parquet, Refused(r"{file}: damaged, or not a parquet file \('utf-8' .*0xe9.*\)")),
    "Latin-1 beyond the first MiB": (
        file("a.txt", (b"a" * 126 + b"\n\n") * (3 * MiB // 128) + b"\xe9x"),
        latin(3 * MiB // 128 * 2 + 1, 3 * MiB),
    ),
    "a sign that a buffer's end cuts, then Latin-1": (
        file("a.txt", b"a" * (MiB - 1) + "é".encode() + b"\xe9x"),
        latin(1, MiB + 1),
    ),
    "half a sign at a buffer's end": (file("a.txt", b"a" * (MiB - 2) + b"\xe2\x82x"), latin(1, MiB - 2, "e2")),
    "half a sign at the file's end": (file("a.txt", b"ab\xe2\x82"), latin(1, 2, "e2")),
    "UTF-16": (file("a.txt", "größer\n\nbreit".encode("utf-16")), Read(["größer", "breit"])),
    "UTF-16 in a .csv": (file("a.csv", b"\xfe\xff" + "text\na\nb\n".encode("utf-16-be")), Read(["a", "b"])),
    "UTF-16 in a packed .jsonl": (
        packed("a.jsonl.gz", '{"text": "größer"}\n{"text": "b"}'.encode("utf-16")),
        Read(["größer", "b"]),
    ),
    "UTF-32 in a .json": (file("a.json", '\n[{"text": "é"}, {"text": "b"}]'.encode("utf-32")), Read(["é", "b"])),
    "UTF-16 that is cut": (
        file("a.txt", "größer\nbreit".encode("utf-16")[:-1]),
        at("line 2", r"not UTF-16-LE at byte 24 \(0x74\); .*"),
    ),
    "UTF-16 without a mark": (
        file("a.txt", "plain\n".encode("utf-16-le")),
        at("line 1", NUL + r"; data\.encoding=utf-16-le would read it"),
    ),
    "UTF-16 without a mark, not plain": (
        file("a.txt", "größer\n".encode("utf-16-be")),
        at("line 1", r"not UTF-8 at byte 5 \(0xf6\); data\.encoding=utf-16-be would read it\. .*iconv -f utf-16-be.*"),
    ),
    "UTF-8 with a damaged byte": (
        file("a.txt", "é ä ö ü ß\n\n".encode() + b"caf\xe9 au lait"),
        at("line 3", r"not UTF-8 at byte 19 \(0xe9\), though what stands before it is; this byte is damaged, or .*"),
    ),
    "UTF-8 that ends within a character": (
        file("a.txt", "é ä ö ü ß é".encode()[:-1]),
        at("line 1", r"not UTF-8 at byte 15 \(0xc3\), though .*; the file ends within a character"),
    ),
    "an encoding that nobody knows": (
        file("a.txt", "a", encoding="ansi"),
        Refused(r"data\.encoding=ansi: no encoding of text has this name; .*"),
    ),
    "an encoding with a wrong letter": (
        file("a.txt", "a", encoding="gb2132"),
        Refused(r"data\.encoding=gb2132: no encoding of text has this name; did you mean gb2312\?; usual are .*"),
    ),
    "an encoding of no text": (
        file("a.txt", "a", encoding="base64"),
        Refused(r"data\.encoding=base64: no encoding of text has this name.*"),
    ),
    "Big5": (file("a.txt", "我們在這裡\n\n等你".encode("big5"), encoding="Big5"), Read(["我們在這裡", "等你"])),
    "Big5 in a .csv": (file("a.csv", "text\n我們\n等你\n".encode("big5"), encoding="big5"), Read(["我們", "等你"])),
    "GBK in a packed .jsonl": (
        lambda folder: {
            **packed("a.jsonl.gz", '{"text": "我们"}\n{"text": "等你"}'.encode("gbk"))(folder),
            "encoding": "gbk",
        },
        Read(["我们", "等你"]),
    ),
    "UTF-8 that is called Big5": (
        file("a.txt", "一\n我們在這裡".encode(), encoding="big5"),
        at("line 1", r"not BIG5 at byte 2 \(0x80\); it is UTF-8, so leave data\.encoding out, and .*iconv.*"),
    ),
    "a mark goes before the encoding that is set": (
        file("a.txt", b"\xef\xbb\xbfgr\xc3\xbc\xc3\x9fe\n\nb", encoding="windows-1252"),
        Read(["grüße", "b"]),
    ),
    # Odd, and read.
    "a byte order mark": (file("a.txt", b"\xef\xbb\xbfone\n\ntwo"), Read(["one", "two"])),
    "CRLF": (file("a.txt", "one\r\nmore\r\n\r\ntwo"), Read(["one\nmore", "two"])),
    "lone CR": (file("a.txt", "one\rmore\r\rtwo"), Read(["one\nmore", "two"])),
    "CRLF in quotes": (file("a.csv", 'text\r\n"a\r\nb"\r\nc\r\n'), Read(["a\nb", "c"])),
    "50 MB in one line": (file("a.txt", LONG + "\n\nend"), Read([LONG, "end"])),
    "50 MB in one row": (file("a.jsonl", f'{{"text": "{LONG}"}}\n{{"text": "end"}}'), Read([LONG, "end"])),
    "50 MB in one field": (file("a.csv", f"text\n{LONG}\nend\n"), Read([LONG, "end"])),
    "50 MB of other signs in one row": (
        jsonl({"text": "é" + LONG[1:]}, {"text": "end"}),
        Read(["é" + LONG[1:], "end"]),
    ),
    "a field of more than 128 kB": (
        file("a.csv", f'text,n\n"{"x y" * 100_000}",1\nend,2\n'),
        Read(["x y" * 100_000, "end"]),
    ),
    "words that mean nothing elsewhere": (
        file("a.csv", 'text\nNA\nnull\nNaN\nNone\n""\n-\n'),
        Read(["NA", "null", "NaN", "None", "-"], (6,)),
    ),
    "an unquoted quote": (file("a.csv", 'text\nfine\nsay "so" twice\n'), Read(["fine", 'say "so" twice'])),
    "commas in a .tsv": (file("a.tsv", "n\ttext\n1\ta, b\n2\tc\n"), Read(["a, b", "c"])),
    "blank lines above a header": (file("a.csv", "\n\ntext\na\n\nb\n"), Read(["a", "b"])),
    "two columns of one name that nobody wants": (file("a.csv", "text,n,n\na,1,2\nb,3,4\n"), Read(["a", "b"])),
    "null in a .jsonl": (jsonl({"text": "a"}, {"text": None}, {"text": "b"}), Read(["a", "b"], (2,))),
    "null in parquet": (parquet({"text": ["a", None, "b"]}), Read(["a", "b"], (2,))),
    "a name twice in an object": (file("a.jsonl", '{"text": "a", "text": "b"}\n{"text": "c"}'), Read(["b", "c"])),
    "a whole pair of surrogates": (file("a.jsonl", '{"text": "\\ud83d\\ude00"}\n{"text": "b"}'), Read(["😀", "b"])),
    "a loop of folders": (tree("x.txt", "y.txt", loop="."), Read(["text of x.txt", "text of y.txt"])),
    "a folder called .txt": (tree("x.txt/y.md", "z.txt"), Read(["text of x.txt/y.md", "text of z.txt"])),
    # JSON.
    "a row that is no JSON": (
        file("a.jsonl", '{"text": "a"}\n\n{"text": "b" "c"}\n'),
        at("line 3", r"not JSON at column 14 \(Expecting ',' delimiter\)"),
    ),
    "a row that is cut": (
        file("a.jsonl", '{"text": "a"}\n{"text": "b"\n'),
        at("line 2", r"not JSON at column 13 \(Expecting ',' delimiter\)"),
    ),
    "a list that is no JSON": (
        file("a.json", '[{"text": "a"},\n  {"text": b}]'),
        at("line 2", r"not JSON at column 12 \(Expecting value\)"),
    ),
    "a list that is cut": (
        file("a.json", '[{"text": "a"},\n{"text": "b"},\n'),
        at("line 3", r"not JSON at column 1 \(Expecting value\)"),
    ),
    "one object over several lines": (
        file("a.json", '{\n  "text": "a"\n}\n'),
        Refused("{file}: one dict; rows are a list of objects, or one object a line"),
    ),
    "a bare number": (
        file("a.json", "5"),
        Refused("{file}: one int; rows are a list of objects, or one object a line"),
    ),
    "a row that is a list": (file("a.jsonl", '{"text": "a"}\n["b"]\n'), Odd("wrong type", "line 2", OBJECT + "list")),
    "a row that is a string": (file("a.json", '[{"text": "a"}, "b"]'), Odd("wrong type", "row 2", OBJECT + "str")),
    "a row without the field": (
        jsonl({"text": "a"}, {"body": "b", "n": 1}),
        Odd("missing field", "line 2", r"no field 'text'; it has 'body', 'n'; " + COLUMN),
    ),
    "a row without any field": (
        jsonl({"text": "a"}, {}),
        Odd("missing field", "line 2", r"no field 'text'; it has none; " + COLUMN),
    ),
    "a number for a text": (
        jsonl({"text": "a"}, {"text": 5}),
        Odd("wrong type", "line 2", "field 'text' must be a string, not int"),
    ),
    "a list for a text": (
        jsonl({"text": "a"}, {"text": ["b"]}),
        Odd("wrong type", "line 2", "field 'text' must be a string, not list"),
    ),
    "an object for a text": (
        jsonl({"text": "a"}, {"text": {"text": "b"}}),
        Odd("wrong type", "line 2", "field 'text' must be a string, not dict"),
    ),
    "nested very deeply": (
        file("a.jsonl", '{"text": "a"}\n{"text": "b", "x": ' + "[" * 10**5 + "]" * 10**5 + "}"),
        at("line 2", "JSON nested too deeply to be rows"),
    ),
    "a list nested very deeply": (
        file("a.json", "[" * 10**5 + "]" * 10**5),
        Refused("{file}: JSON nested too deeply to be rows"),
    ),
    "a number of 5,000 digits": (
        file("a.jsonl", '{"text": "a"}\n{"text": "b", "n": ' + "9" * 5000 + "}"),
        at("line 2", r"a number of too many digits \(.*\)"),
    ),
    "half of a surrogate pair": (
        file("a.jsonl", '{"text": "a"}\n{"text": "half \\ud83d"}'),
        Odd("wrong type", "line 2", "field 'text' holds half a surrogate pair, which is no text"),
    ),
    "half of a surrogate pair in a group": (
        file("a.jsonl", '{"text": "a", "by": "\\ud83d"}', group_column="by"),
        Odd("wrong type", "line 1", "field 'by' holds half a surrogate pair, .*"),
    ),
    # Tables.
    "a .csv without the column": (
        file("a.csv", "n,body\n1,a\n"),
        at("line 1", r"no field 'text'; it has 'n', 'body'; " + COLUMN + NAMES),
    ),
    "a .csv with semicolons": (
        file("a.csv", "n;text\n1;a\n"),
        at("line 1", r"the header has one column, 'n;text', whose parts seem to be parted by semicolons; " + PARTED),
    ),
    "a .csv with tabs": (
        file("a.csv", "n\ttext\n1\ta\n"),
        at("line 1", r"the header has one column, 'n\\ttext', whose parts seem to be parted by tabs; " + PARTED),
    ),
    "a .tsv with commas": (
        file("a.tsv", "n,text\n1,a\n"),
        at("line 1", r"the header has one column, 'n,text', whose parts seem to be parted by commas; " + PARTED),
    ),
    "a .csv that declares semicolons": (
        file("a.csv", "sep=;\nn;text\n1;a\n"),
        at("line 1", r"the header has one column, 'sep=;', whose parts seem to be parted by semicolons; " + PARTED),
    ),
    "a .csv that declares commas": (file("a.csv", "sep=,\nn,text\n1,a\n2,b\n"), Read(["a", "b"])),
    "two columns called text": (file("a.csv", "text,n,text\na,1,b\n"), at("line 1", "two columns are called 'text'")),
    "a row that is too short": (
        file("a.csv", 'text,n\n"a\nb",1\nc\n'),
        at("line 4", "1 fields, and the header has 2" + RAGGED),
    ),
    "a row that is too long": (
        file("a.csv", "text,n\na,1\nb, and c,2\n"),
        at("line 3", "3 fields, and the header has 2" + RAGGED),
    ),
    "a quote that is never closed": (
        file("a.csv", 'text\nfine\n"open\nmore\nmore\n'),
        at("line 3", r"broken quotes \(unexpected end of data\)" + QUOTES),
    ),
    "a quote within quotes": (
        file("a.csv", 'text\nfine\n"say "so" twice"\n'),
        at("line 3", r"broken quotes \(.*\)" + QUOTES),
    ),
    "a .tsv with an inch sign": (file("a.tsv", 'text\tn\nfine\t1\n"5\t2\n'), Read(["fine", '"5'])),
    "a .tsv with an inch sign that is said to be quoted": (
        file("a.tsv", 'text\tn\nfine\t1\n"5\t2\n', quoting="csv"),
        at("line 3", r"broken quotes \(.*\)" + QUOTES),
    ),
    "a .tsv in which quotes would take in rows": (
        file("a.tsv", 'text\tn\n"one\t1\ntwo\t2\nthree"\t3\n'),
        Read(['"one', "two", 'three"']),
    ),
    "a .tsv that is quoted": (
        file("a.tsv", 'text\tn\n"one\tor two\nlines"\t1\n"say ""so"""\t2\n'),
        Read(["one\tor two\nlines", 'say "so"']),
    ),
    "a .tsv whose cells hold line ends": (file("a.tsv", 'text\tn\n"one\nlines"\t1\nb\t2\n'), Read(["one\nlines", "b"])),
    "a .tsv whose quotes are the same either way": (file("a.tsv", 'text\tn\n"one"\t1\ntwo\t2\n'), Read(["one", "two"])),
    "a .tsv of one column that is quoted": (file("a.tsv", 'text\n"one\nmore"\ntwo\n'), Read(["one\nmore", "two"])),
    "a .csv whose quotes are letters": (
        file("a.csv", 'text,n\n"one,1\ntwo",2\n', quoting="none"),
        Read(['"one', 'two"']),
    ),
    "a comma where quotes are letters": (
        file("a.csv", 'text,n\n"one, two",1\n', quoting="none"),
        at("line 2", r"3 fields, and the header has 2; quotes are letters here, .* data\.quoting=csv reads them as .*"),
    ),
    "parquet without the column": (
        parquet({"body": ["a"], "n": [1]}),
        Refused(r"{file}: no field 'text'; it has 'body', 'n'; " + COLUMN),
    ),
    "parquet with numbers": (
        parquet({"text": [1, 2]}),
        Odd("wrong type", "row 1", "field 'text' must be a string, not int"),
    ),
    "parquet with lists": (
        parquet({"text": [None, ["a"]]}),
        Odd("wrong type", "row 2", "field 'text' must be a string, not list"),
    ),
    "parquet with bytes": (
        parquet({"text": [b"a"]}),
        Odd("wrong type", "row 1", "field 'text' must be a string, not bytes"),
    ),
    "parquet with a column twice": (twice_a_column, Refused("{file}: two columns are called 'text'")),
    "parquet that is cut": (parquet({"text": ["a" * 9] * 500}, lambda raw: raw[:2000]), Refused(PARQUET)),
    "parquet that is damaged inside": (
        parquet({"text": ["a" * 9] * 500}, lambda raw: raw[:99] + b"\xff" * 999 + raw[1098:]),
        Refused(PARQUET),
    ),
    "text called .parquet": (file("a.parquet", "text\na\n"), Refused(PARQUET)),
    "a group that is missing": (
        jsonl({"text": "a", "by": "x"}, {"text": "b"}, group_column="by"),
        Odd("no group", "line 2", r"nothing in 'by', which data\.group_column names; it has 'text'"),
    ),
    "a group that is blank": (
        file("a.csv", "text,by\na,x\nb,\n", group_column="by"),
        Odd("no group", "line 3", r"nothing in 'by', which data\.group_column names; it has 'text', 'by'"),
    ),
    "a group that is a list": (
        jsonl({"text": "a", "by": ["x"]}, group_column="by"),
        Odd("wrong type", "line 1", "field 'by' must be a string, not list"),
    ),
    "groups in a text file": (
        file("a.txt", "a", group_column="by"),
        Refused(r"{file}: data\.group_column is" + WITHOUT),
    ),
    # Packed files.
    "a packed file that is cut": (
        packed("a.txt.gz", os.urandom(9999).hex().encode(), -999),
        Refused(r"{file}: not a whole gzip file \(.*ended before.*\)"),
    ),
    "a packed file without its end": (
        packed("a.jsonl.gz", b'{"text": "a"}\n', -4),
        Refused(r"{file}: not a whole gzip file \(.*\)"),
    ),
    "text called .gz": (
        file("a.csv.gz", "text\na\n"),
        Refused(r"{file}: not a whole gzip file \(Not a gzipped file .*\)"),
    ),
    "packed parquet": (file("a.parquet.gz", b"PAR1"), Refused(rf"data\.path={{file}}: can't read a \.gz; {USABLE}")),
    # Paths.
    "no such file": (path("a.txt"), Refused(r"data\.path={folder}/a\.txt: " + ABSENT)),
    "a name that is too long": (path("a" * 300 + ".txt"), Refused(r"data\.path={folder}/a*\.txt: " + ABSENT)),
    "a glob that matches nothing": (path("*.txt"), Refused(r"data\.path={folder}/\*\.txt: " + ABSENT)),
    "a glob that matches nothing usable": (
        lambda folder: {**file("a.pdf", "a")(folder), "path": str(folder / "*.pdf")},
        Refused(
            r"data\.path={folder}/\*\.pdf: nothing that it matches is usable: 1 file of other kinds \(\.pdf 1\); "
            + USABLE
        ),
    ),
    "an ending that nothing here reads": (
        file("a.pdf", "a"),
        Refused(rf"data\.path={{file}}: can't read a \.pdf; {USABLE}"),
    ),
    "no ending": (file("notes", "a"), Refused(rf"data\.path={{file}}: can't read a file without an ending; {USABLE}")),
    "a link to nothing": (link("gone.txt"), Refused(r"data\.path={file}: {file}: " + LINK)),
    "a link to itself": (link("a.txt"), Refused(r"data\.path={file}: {file}: " + LINK)),
    "a link to nothing in a folder": (
        tree("b.txt", c_txt="gone.txt"),
        Refused(r"data\.path={folder}/a: {folder}/a/c\.txt: a link that leads nowhere, .*"),
    ),
    "a pipe": (pipe, Refused(r"data\.path={file}: {file}: neither a file nor a folder")),
    "a file that may not be read": (locked(file("a.txt", "a"), "a.txt"), Refused(r"{file}: " + LOCKED, by_rights=True)),
    "a folder that may not be read": (
        locked(tree("b.txt"), "a"),
        Refused(r"data\.path={folder}/a: {folder}/a: " + LOCKED, by_rights=True),
    ),
    "a folder in it that may not be read": (
        locked(tree("b.txt", "c/d.txt"), "a/c"),
        Refused(r"data\.path={folder}/a: {folder}/a/c: " + LOCKED, by_rights=True),
    ),
    "a file in a folder that may not be entered": (
        lambda folder: {**locked(tree("b.txt"), "a")(folder), "path": str(folder / "a" / "b.txt")},
        Refused(r"data\.path={folder}/a/b\.txt: {folder}/a/b\.txt: " + LOCKED, by_rights=True),
    ),
    # Too little to split.
    "the same text again and again": (
        jsonl(*[{"text": "a"}] * 9),
        Refused(r"the corpus is too small to split: of 1 document none is left to .*"),
    ),
    "one document": (
        jsonl({"text": "a"}),
        Refused(r"the corpus is too small to split: of 1 document none is left to .*data\.val_path=.*"),
    ),
    "itself as validation set": (
        itself_as_validation,
        Refused(r"nothing to train on: every document of data\.path is in data\.val_path .*"),
    ),
    # Instructions.
    "a row without a completion": (
        instructions(pair("a", "b"), pair("c", None), pair("d", " "), pair("e", "f")),
        Read(['{"prompt": "a", "completion": "b"}', '{"prompt": "e", "completion": "f"}'], (2, 3)),
    ),
    "a null prompt": (
        instructions({"prompt": None, "completion": "a"}, pair("b", "c")),
        Read(['{"prompt": "", "completion": "a"}', '{"prompt": "b", "completion": "c"}']),
    ),
    "no row with a completion": (
        instructions(pair("a", None), pair("b", "")),
        Refused(NOTHING + r"no answer 2 \({file}:1, {file}:2\): nothing stands in 'completion'"),
    ),
    "a row without the field of the completion": (
        instructions(pair("a", "b"), {"prompt": "c", "answer": "d"}),
        Odd("missing field", "line 2", COMPLETION + r"; it has 'prompt', 'answer'; set data\.columns"),
    ),
    "a .csv without any of the fields": (
        file("a.csv", "q,a\nb,c\n", format="instructions"),
        at("line 1", COMPLETION + r"; it has 'q', 'a'; set data\.columns" + NAMES),
    ),
    "a list for a prompt": (
        instructions({"prompt": ["a"], "completion": "b"}),
        Odd("wrong type", "line 1", "field 'prompt' must be a string, not list"),
    ),
    "instructions in a text file": (
        file("a.txt", "a", format="instructions"),
        Refused("{file}: instructions are" + WITHOUT),
    ),
    "messages that are a string": (instructions({"messages": "hello"}), Odd("wrong type", "line 1", CHAT)),
    "messages that are strings": (instructions({"messages": ["hello"]}), Odd("wrong type", "line 1", CHAT)),
    "a message without a role": (
        instructions({"messages": [{"content": "a"}]}),
        Odd("missing field", "line 1", r"a message has no 'role'; it has 'content'; set data\.columns\.role"),
    ),
    "a message without content": (
        instructions({"messages": [{"role": "user"}]}),
        Odd("missing field", "line 1", r"a message has no 'content'; it has 'role'; set data\.columns\.content"),
    ),
    "content that is a list of numbers": (
        instructions({"messages": [user([5])]}),
        Odd("wrong type", "line 1", "a part of a message's 'content' must be a string, not int"),
    ),
    "content that is a number": (
        instructions({"messages": [user(5), assistant("a")]}),
        Odd("wrong type", "line 1", "a message's 'content' must be a string, not int"),
    ),
    "a role that is null": (
        instructions({"messages": [{"role": None, "content": "a"}, assistant("b")]}),
        Odd("wrong type", "line 1", "a message's 'role' must be a string, not null"),
    ),
    "messages without an answer": (
        instructions(
            {"messages": [user("a")]},
            {"messages": [user("b"), assistant("c")]},
            {"messages": []},
            {"messages": None},
            {"messages": [user("d"), assistant(" ")]},
            {"messages": [assistant("e")]},
        ),
        Read(
            [json.dumps({"messages": [user("b"), assistant("c")]}), json.dumps({"messages": [assistant("e")]})],
            (1, 3, 4, 5),
        ),
    ),
    "a role that nobody knows": (
        instructions({"messages": [{"role": "narrator", "content": "a"}, assistant("b")]}),
        Odd("unknown role", "line 1", r"the role 'narrator' is none of user, .*; data\.roles .*{{narrator: user}}'"),
    ),
    "a part of a message that is a picture": (
        instructions({"messages": [user([{"type": "image", "url": "x"}]), assistant("b")]}),
        Odd("wrong type", "line 1", "a message's 'content' has a part of type 'image'; only text is read"),
    ),
    "an instruction that is a number": (
        instructions({"instruction": 5, "output": "a"}),
        Odd("wrong type", "line 1", "field 'instruction' must be a string, not int"),
    ),
    "a history of single texts": (
        instructions({"instruction": "a", "output": "b", "history": ["c"]}),
        Odd(
            "wrong type",
            "line 1",
            "field 'history' must be a list of messages, or of pairs of a question and its answer",
        ),
    ),
    "calls of tools with half of a surrogate pair": (
        instructions({"messages": [user("a"), {"role": "assistant", "tool_calls": ["\ud83d"]}]}),
        Odd("wrong type", "line 1", "a message's 'tool_calls' must be a list that JSON can hold"),
    ),
    "rows of several forms, one of them empty": (
        file(
            "a.csv",
            "messages,prompt,completion,instruction,output\n,a,b,,\n,,,c,d\n"
            '"[{""role"": ""bot"", ""content"": ""e""}]",,,,\n',
            format="instructions",
        ),
        Read(
            [
                json.dumps(pair("a", "b")),
                json.dumps({"messages": [user("c"), assistant("d")]}),
                json.dumps({"messages": [assistant("e")]}),
            ]
        ),
    ),
    # Missing values.
    "NaN for a text": (jsonl({"text": "a"}, {"text": float("nan")}, {"text": "nan"}), Read(["a", "nan"], (2,))),
    "NaN in parquet": (parquet({"text": pa.array([None, None], pa.float64())}), Refused(NOTHING + "blank 2 .*")),
    "a NaN for a group": (
        jsonl({"text": "a", "by": 1.0}, {"text": "b", "by": float("nan")}, group_column="by"),
        Odd("no group", "line 2", r"nothing in 'by', which data\.group_column names; it has 'text', 'by'"),
    ),
    "no label": (
        jsonl(*[{"text": f"{n}", "label": label} for n, label in enumerate(NO_LABELS)], format="labels"),
        Read(
            ['{"text": "4", "label": "None"}', '{"text": "5", "label": "NA"}', '{"text": "6", "labels": []}'],
            (1, 2, 3, 4),
        ),
    ),
    "words for nothing in a .csv": (
        file("a.csv", "text,label\na,\nb,NA\nc, \nd,None\n", format="labels"),
        Read(['{"text": "b", "label": "NA"}', '{"text": "d", "label": "None"}'], (2, 4)),
    ),
    "no row with a label": (
        jsonl({"text": "a", "label": None}, {"text": "b"}, format="labels"),
        Refused(
            NOTHING + r"no label 1 \({file}:1\): nothing stands in 'label'; "
            r"missing field 1 \({file}:2\): no field 'label'; it has 'text'; set data\.columns\.label"
        ),
    ),
    "a label that is an object": (
        jsonl({"text": "a", "label": {"b": 1}}, format="labels"),
        Odd("wrong type", "line 1", "a label in 'label' must be a string or a number, not dict"),
    ),
    "a label without end": (
        jsonl({"text": "a", "label": float("inf")}, format="labels"),
        Odd("wrong type", "line 1", "a label in 'label' must be a string or a number, not inf"),
    ),
    "a list in a list of labels": (
        jsonl({"text": "a", "label": [["b"]]}, format="labels"),
        Odd("wrong type", "line 1", "a label in 'label' must be a string or a number, not list"),
    ),
    "tags in brackets": (
        file("a.csv", "tokens,tags\n\"['a', 'b']\",[open]\n", format="entities"),
        Odd("wrong type", "line 2", "field 'tags' must be a list of strings, not str"),
    ),
    "fewer tags than words": (
        jsonl({"tokens": ["a", "b"], "tags": ["O"]}, format="entities"),
        Odd("unequal lengths", "line 1", "2 tokens and 1 tags"),
    ),
    "a tag without a kind": (
        jsonl({"tokens": ["a"], "tags": ["B-"]}, format="entities"),
        Odd("unreadable tag", "line 1", "the tag 'B-' is neither O nor a kind after B-, I-, E- or S-"),
    ),
    "lists of words in a .csv": (
        file("a.csv", 'tokens,tags\n"[\'a\' \'b\']","[""O"", ""B-X""]"\n', format="entities"),
        Read([json.dumps({"tokens": ["a", "b"], "tags": ["O", "B-X"]})]),
    ),
    "a pair without its target": (
        file("a.csv", "source,target\na,b\nc,\n,d\n", format="pairs"),
        Read([json.dumps({"source": "a", "target": "b"})], (3, 4)),
    ),
    "a pair without the field": (
        jsonl({"source": "a", "summary": "b"}, format="pairs"),
        Odd("missing field", "line 1", r"no field 'target'; it has 'source', 'summary'; set data\.columns\.target"),
    ),
}


SOUND: dict[str, dict[str, Any]] = {
    "text": {"text": "a sound row"},
    "instructions": pair("a", "sound row"),
    "labels": {"text": "a sound row", "label": "x"},
    "entities": {"tokens": ["a"], "tags": ["O"]},
    "pairs": {"source": "a sound row", "target": "x"},
}


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root as a user who has to be given leave."""
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def read_as_a_run_does(config: DataConfig, cache: Path) -> Splits:
    splits = read_splits(config, str(cache))
    check_sides(splits, config)
    return splits


@pytest.fixture
def open_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that everybody can reach, and that can be deleted afterwards."""
    modes = {folder: folder.stat().st_mode for folder in (tmp_path, *tmp_path.parents)}
    closed = [folder for folder, mode in modes.items() if os.geteuid() == 0 and mode & 0o111 != 0o111]
    for folder in closed:
        folder.chmod(modes[folder] | 0o111)
    yield tmp_path
    for folder in closed:
        folder.chmod(modes[folder])
    for place, folders, files in os.walk(tmp_path):
        for name in [*folders, *files]:
            if not os.path.islink(os.path.join(place, name)):
                os.chmod(os.path.join(place, name), 0o755)


def split_in_two(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Settings with which this little text can be split: a validation set of its own."""
    row = SOUND[config.get("format", "text")]
    (folder / "validation.jsonl").write_text(json.dumps(row) + "\n")
    return {**config, "val_path": str(folder / "validation.jsonl"), "test_fraction": 0}


@pytest.mark.parametrize("case", CASES)
def test_it_is_told_where_or_read_as_documented(open_folder: Path, case: str) -> None:
    make, expected = CASES[case]
    folder = open_folder / "inputs"
    folder.mkdir()
    settings = make(folder)
    cache = open_folder / "cache"
    started = time.monotonic()
    if isinstance(expected, Odd):
        settings["strict"], expected = True, at(expected.place, expected.message)
    if isinstance(expected, Refused):
        lowered = as_nobody() if expected.by_rights and os.geteuid() == 0 else nullcontext()
        with lowered, pytest.raises(UsageError) as caught:
            read_as_a_run_does(DataConfig(**settings), cache)
        names = {"file": re.escape(str(settings["path"])), "folder": re.escape(str(folder))}
        assert re.fullmatch(expected.message.format(**names), str(caught.value)), str(caught.value)
    else:
        config = DataConfig(**split_in_two(settings, folder))
        documents = read_as_a_run_does(config, cache).documents
        kept = documents.records(0, len(documents) - 1)
        given = [each if isinstance(each, str) else json.dumps(each, ensure_ascii=False) for each in kept]
        assert len(given) == len(expected.texts)
        assert all(map(operator.eq, given, expected.texts)), "not shown, they may be long"
        assert documents.rows_left_out[:, 1].tolist() == list(expected.blank)
    assert time.monotonic() - started < LIMIT_SECONDS
    leftovers = [entry for entry in cache.rglob("*") if entry.suffix == ".unfinished"]
    assert leftovers == []


@pytest.mark.parametrize("case", [case for case, (_, expected) in CASES.items() if isinstance(expected, Odd)])
def test_an_odd_row_is_left_out_and_the_rest_is_read(tmp_path: Path, case: str) -> None:
    make, expected = CASES[case]
    assert isinstance(expected, Odd)
    settings = make(tmp_path)
    row = SOUND[settings.get("format", "text")]
    names = {settings["text_column"]: row["text"]} if "text_column" in settings else {}
    sound = jsonl({**row, **names, settings.get("group_column"): "x"})
    (tmp_path / "sound").mkdir()
    path = [settings["path"], sound(tmp_path / "sound")["path"]]
    documents = read_splits(DataConfig(**{**settings, "path": path}), str(tmp_path / "cache")).documents
    left_out = documents.left_out()[expected.reason]
    assert left_out["places"][0] == f"{settings['path']}:{expected.place.split()[1]}"
    assert re.fullmatch(expected.message.format(), left_out["why"])
    assert len(documents) > 0
