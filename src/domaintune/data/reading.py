"""Files -> rows: one text each, where it came from, and the group it belongs to. Nothing here knows of tokens.

Everything but a list in a .json file is read as a stream: a file of many gigabytes takes no more memory than its
longest row, a .parquet file than its largest row group.
"""

import codecs
import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import IO, Any

from domaintune.config import UsageError
from domaintune.data.finding import CONLL, TEXTS, Source, first_line
from domaintune.data.left_out import UNFILLED
from domaintune.data.marking import unmarked
from domaintune.data.rows import Fields, Row, no_column, not_blank, row_of

TAGGED = (".conll", ".tsv")  # read as words with tags where words are wanted; a .txt may as well be plain text
BATCH = 100  # rows of a table with columns that are in memory at once


def read(source: Source, fields: Fields) -> Iterator[Row]:
    """The rows of a source, in their order.

    Raises:
        UsageError: the source is damaged or not what its suffix says, or `fields.strict` and a row can't be used; names
            file and place.
    """
    rows, in_lines = _read(source, fields), is_plain(source, fields)
    return (each for row in rows for each in unmarked(row, fields, in_lines)) if fields.marks else rows


def _read(source: Source, fields: Fields) -> Iterator[Row]:
    if is_plain(source, fields):
        yield from _texts(source, fields.unit)
        return
    rows = _ROWS.get(source.kind)
    if source.kind in {"entities": CONLL, "words": TAGGED}.get(fields.format, ()):
        rows = _sentences
    elif rows is None:
        what = "data.group_column is" if fields.format == "text" else f"{fields.format} are"
        raise UsageError(f"{source.name}: {what} read from rows with columns, which a text file does not have")
    assert rows is not None
    for place, row in rows(source, fields):
        found = row_of(place, row, fields)
        if fields.strict and found.text is None and found.reason not in UNFILLED:
            raise UsageError(f"{_at(source, place)}: {found.why}")
        yield found


def is_plain(source: Source, fields: Fields) -> bool:
    """Whether the rows of a source are stretches of a text file: they are plain text whatever the format."""
    plain = fields.format == "text" or (fields.format == "words" and source.kind not in TAGGED)
    return source.kind in TEXTS and plain and not fields.group_column


def _at(source: Source, place: int) -> str:
    return f"{source.name}, {'line' if source.kind in ('.jsonl', '.csv', '.tsv', *TEXTS) else 'row'} {place}"


# Text files.


def _texts(source: Source, unit: str) -> Iterator[Row]:
    """The whole file, its paragraphs (runs of lines that are not blank) or its lines, placed by the line they start.

    Blank lines between them are layout, not rows without text.
    """
    with _opened(source) as lines:
        if unit == "file":
            pieces = iter([(1, lines.read())])
        elif unit == "paragraph":
            pieces = ((number, "".join(piece)) for number, piece in _paragraphs(lines))
        else:
            pieces = ((number, line) for number, line in enumerate(lines, start=1) if not line.isspace())
        for place, text in pieces:
            if "\0" in text:
                raise _nul(source, place + text[: text.index("\0")].count("\n"))
            yield Row(place, not_blank(text.strip("\n")))


def _paragraphs(
    lines: Iterable[str], is_layout: Callable[[str], bool] = str.isspace
) -> Iterator[tuple[int, list[str]]]:
    """(number of the first line, lines) of runs of lines between those that are blank, or layout in other ways."""
    piece: list[str] = []
    number = 0
    for number, line in enumerate(lines, start=1):
        if not (line.isspace() or is_layout(line)):
            piece.append(line)
        elif piece:
            yield number - len(piece), piece
            piece = []
    if piece:
        yield number + 1 - len(piece), piece


def _nul(source: Source, line: int) -> UsageError:
    return UsageError(f"{source.name}, line {line}: a NUL character; this is no text, or not in UTF-8")


@contextmanager
def _opened(source: Source) -> Iterator[IO[str]]:
    """A stream of text: UTF-8 with or without a byte order mark, any line ends, unpacked where it is gzipped."""
    try:
        with _binary(source) as raw, io.TextIOWrapper(raw, encoding="utf-8-sig") as stream:
            try:
                yield stream
            except UnicodeDecodeError as error:
                raise UsageError(f"{source.name}: {_not_utf8(source)}") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UsageError(f"{source.name}: not a whole gzip file ({error})") from error
    except OSError as error:
        raise UsageError(f"{source.name}: can't be read ({error.strerror or error})") from error


def _binary(source: Source) -> Any:
    return gzip.open(source.name, "rb") if source.gzipped else open(source.name, "rb")


def _not_utf8(source: Source) -> str:
    """Where the first byte that is not UTF-8 stands: a stream's own error counts from the beginning of a buffer."""
    decoder, done = codecs.getincrementaldecoder("utf-8")(), 0
    with _binary(source) as raw:
        for chunk in chain(iter(lambda: raw.read(1 << 20), b""), [b""]):
            kept = len(decoder.getstate()[0])  # of a character that the last chunk cut
            try:
                decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                byte, place = error.object[error.start], done - kept + error.start
                encoding = "UTF-16" if place == 0 and byte in (0xFE, 0xFF) else "WINDOWS-1252"
                what = " of what is packed in it" if source.gzipped else ""
                return (
                    f"not UTF-8 at byte {place}{what} (0x{byte:02x}); text in another encoding must be converted, for "
                    f"example with iconv -f {encoding} -t UTF-8"
                )
            done += len(chunk)
    return "not UTF-8 when it was first read; it changes meanwhile"


# Tables: {column: value} of each row, with its place.


def _json_lines(source: Source, _: Fields) -> Iterator[tuple[int, Any]]:
    with _opened(source) as lines:
        yield from _parsed_lines(source, lines)


def _parsed_lines(source: Source, lines: IO[str]) -> Iterator[tuple[int, Any]]:
    # Not splitlines(): JSON strings may hold U+2028 and its like, which are no line ends here.
    for number, line in enumerate(lines, start=1):
        if not line.isspace():
            yield number, _parse(source, line.rstrip("\n"), f", line {number}")


def _parse(source: Source, text: str, place: str = "") -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = place or f", line {error.lineno}"
        raise UsageError(f"{source.name}{where}: not JSON at column {error.colno} ({error.msg})") from error
    except ValueError as error:
        raise UsageError(f"{source.name}{place}: a number of too many digits ({error})") from None
    except RecursionError:
        raise UsageError(f"{source.name}{place}: JSON nested too deeply to be rows") from None


def _json(source: Source, _: Fields) -> Iterator[tuple[int, Any]]:
    """A list of objects, or one object a line as in .jsonl; a list is held in memory as a whole."""
    with _opened(source) as stream:
        first = next((line for line in stream if not line.isspace()), "")
        stream.seek(0)
        if first.lstrip().startswith("{") and first.rstrip().endswith("}"):
            yield from enumerate((row for _, row in _parsed_lines(source, stream)), start=1)
            return
        rows = _parse(source, stream.read()) if first else []
    if not isinstance(rows, list):
        raise UsageError(f"{source.name}: one {type(rows).__name__}; rows are a list of objects, or one object a line")
    yield from enumerate(rows, start=1)


def _csv(source: Source, fields: Fields) -> Iterator[tuple[int, Any]]:
    """Rows below a header, placed by the line they start at; quoted as spreadsheets do, so texts may hold line ends."""
    csv.field_size_limit(2**31 - 1)  # the default refuses a text of more than 128 kB
    with _opened(source) as stream:
        reader = csv.reader(_without_nul(source, stream), delimiter="\t" if source.kind == ".tsv" else ",", strict=True)
        line = 0
        try:
            header = next((row for row in reader if row), [])
            line = reader.line_num
            if header:
                _wanted(header, fields, f"{source.name}, line {line}")
            for row in reader:
                begins, line = line + 1, reader.line_num
                if row and len(row) != len(header):
                    raise UsageError(
                        f"{source.name}, line {begins}: {len(row)} fields, and the header has {len(header)}; "
                        f"a text that holds the separator or a line end must stand in quotes"
                    )
                if row:
                    yield begins, dict(zip(header, row, strict=True))
        except csv.Error as error:
            raise UsageError(
                f"{source.name}, line {line + 1}: broken quotes ({error}); a field that begins with a quote "
                f"must end with one, and a quote inside it is written twice"
            ) from error


def _sentences(source: Source, fields: Fields) -> Iterator[tuple[int, Any]]:
    """A CoNLL file: a word a line, the tag in its last column, a blank line after each sentence.

    Where only words are wanted there need be no tag.
    """
    tokens, tags = (fields.column(role) for role in ("tokens", "tags"))
    with _opened(source) as stream:
        for number, lines in _paragraphs(_without_nul(source, stream), lambda line: line.startswith("-DOCSTART-")):
            sentence: dict[str, list[str]] = {tokens: [], tags: []}
            for offset, line in enumerate(lines):
                parts = line.rstrip("\n").split("\t") if "\t" in line else line.split()
                if len(parts) < 2 and fields.format != "words":
                    raise UsageError(
                        f"{source.name}, line {number + offset}: one column; a word and its tag are two, parted "
                        f"by a tab or spaces"
                    )
                sentence[tokens].append(parts[0].strip())
                sentence[tags].append(parts[-1].strip())
            yield number, sentence


def _without_nul(source: Source, lines: IO[str]) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        if "\0" in line:
            raise _nul(source, number)
        yield line


def _parquet(source: Source, fields: Fields) -> Iterator[tuple[int, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(source.name, pre_buffer=False) as file:
            columns = _wanted(file.schema_arrow.names, fields, source.name)
            batches = file.iter_batches(BATCH, columns=columns)
            rows = (row for batch in batches for row in batch.to_pylist())
            yield from enumerate(rows, start=1)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{source.name}: damaged, or not a parquet file ({first_line(error)})") from error


def _dataset(source: Source, fields: Fields) -> Iterator[tuple[int, Any]]:
    dataset = source.dataset.with_format(None)  # a saved set may hide columns, or give tensors
    columns = _wanted(dataset.column_names, fields, source.name)
    named = {name: names for name in columns if (names := _class_names(dataset.features[name]))}
    rows = (row for batch in dataset.select_columns(columns).iter(BATCH) for row in _by_row(batch))
    for number, row in enumerate(rows, start=1):
        yield number, {name: _by_name(value, named[name]) if name in named else value for name, value in row.items()}


def _class_names(feature: Any) -> list[str] | None:
    """Of a column of numbers that stand for classes, or of lists of them."""
    return getattr(feature, "names", None) or getattr(getattr(feature, "feature", None), "names", None)


def _by_name(value: Any, names: list[str]) -> Any:
    if isinstance(value, list):
        return [_by_name(each, names) for each in value]
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else None


def _wanted(columns: list[str], fields: Fields, where: str) -> list[str]:
    """Those of a table's columns that are wanted. Raises UsageError where none of them can hold a text."""
    if not set(columns) & set(fields.names()):
        raise UsageError(f"{where}: {no_column(fields, columns)}")
    wanted = [name for name in columns if name in (*fields.names(), fields.group_column)]
    if twice := [name for name in wanted if wanted.count(name) > 1]:
        raise UsageError(f"{where}: two columns are called {twice[0]!r}")
    return wanted


def _by_row(batch: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
    return (dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True))


_ROWS = {
    ".jsonl": _json_lines,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
    "dataset": _dataset,
}
