"""Files -> documents. The first hop of the data's way: nothing here knows of tokens."""

import glob
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from domaintune.config import UsageError

SUFFIXES = (".txt", ".md", ".jsonl")


@dataclass(frozen=True)
class Document:
    """One text and where it came from: `source` is a file, with a paragraph, line or row after a colon."""

    text: str
    source: str


def read_documents(
    path: str, unit: str | None = None, text_column: str = "text", setting: str = "data.path"
) -> list[Document]:
    """All documents of a file, a folder (searched through) or a glob, in the order of their names.

    Args:
        path: what to read; `~` is the home folder.
        unit: what is one document of a text file: `file`, `paragraph` (between blank lines) or `line`;
            None: `paragraph` if `path` is a single .txt file (one book), else `file`.
        text_column: the field of a .jsonl row that holds the text.
        setting: what the path was given as, for messages.

    Raises:
        UsageError: the path is missing, nothing in it can be used, or a file is damaged; names file and place.
    """
    try:
        files = find_files(path)
    except UsageError as error:
        raise UsageError(f"{setting}={path}: {error}") from error
    if unit is None:
        one_book = Path(path).expanduser().is_file() and files[0].suffix.lower() == ".txt"
        unit = "paragraph" if one_book else "file"
    documents = [document for file in files for document in _read(file, unit, text_column)]
    kept = [document for document in documents if document.text.strip()]
    if not kept:
        raise UsageError(f"{setting}={path}: {_count(len(files), 'file')} read, and no text in any of them")
    return kept


def find_files(path: str) -> list[Path]:
    """The usable files behind a path, sorted by name. Raises UsageError where there are none."""
    place = Path(path).expanduser()
    if place.is_file():
        if place.suffix.lower() not in SUFFIXES:
            raise UsageError(f"can't read a {place.suffix or 'file without an ending'}; {_usable()}")
        return [place]
    if place.is_dir():
        found = [file for file in sorted(place.rglob("*")) if file.is_file() and file.suffix.lower() in SUFFIXES]
        if not found:
            raise UsageError(f"the folder holds no usable file; {_usable()}")
        return found
    matches = [Path(match) for match in sorted(glob.glob(str(place), recursive=True))]
    found = [match for match in matches if match.is_file() and match.suffix.lower() in SUFFIXES]
    if matches and not found:
        raise UsageError(f"nothing that it matches is usable; {_usable()}")
    if not found:
        raise UsageError(f"no such file or folder (from {Path.cwd()})")
    return found


def _usable() -> str:
    return f"usable are {', '.join(SUFFIXES)}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _read(file: Path, unit: str, text_column: str) -> Iterator[Document]:
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise UsageError(f"{file}: can't be read ({error.strerror})") from error
    text = _decode(raw, file)
    if file.suffix.lower() == ".jsonl":
        yield from _rows(text, file, text_column)
    elif unit == "file":
        yield Document(text.strip("\n"), str(file))
    else:
        yield from _pieces(text, file, unit)


def _decode(raw: bytes, file: Path) -> str:
    """UTF-8 with or without a byte order mark; line ends become \\n."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{file}: not UTF-8 at byte {error.start} (0x{raw[error.start]:02x}); "
            f"convert it, for example with iconv -f WINDOWS-1252 -t UTF-8"
        ) from error
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def _pieces(text: str, file: Path, unit: str) -> Iterator[Document]:
    """Paragraphs (runs of lines that are not blank) or lines, named by the line they start at."""
    piece: list[str] = []
    for number, line in enumerate([*text.split("\n"), ""], start=1):
        if line.strip():
            piece.append(line)
        if piece and (unit == "line" or not line.strip()):
            yield Document("\n".join(piece), f"{file}:{number - len(piece) + (unit == 'line')}")
            piece = []


def _rows(text: str, file: Path, text_column: str) -> Iterator[Document]:
    # Not splitlines(): JSON strings may hold U+2028 and its like, which are no line ends here.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UsageError(f"{file}, line {number}: not JSON ({error.msg} at column {error.colno})") from error
        value = row.get(text_column) if isinstance(row, dict) else None
        if not isinstance(value, str):
            raise UsageError(f"{file}, line {number}: {_why_no_text(row, text_column)}")
        if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
            raise UsageError(
                f"{file}, line {number}: field {text_column!r} holds half a surrogate pair, which is no text"
            )
        yield Document(value, f"{file}:{number}")


def _why_no_text(row: object, text_column: str) -> str:
    if not isinstance(row, dict):
        return f"a row must be an object like {{{json.dumps(text_column)}: ...}}, not {type(row).__name__}"
    if text_column not in row:
        return f"no field {text_column!r}; it has {', '.join(map(repr, row)) or 'none'}; set data.text_column"
    return f"field {text_column!r} must be a string, not {type(row[text_column]).__name__}"
