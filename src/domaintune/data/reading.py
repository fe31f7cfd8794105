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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import IO, Any, NamedTuple

from domaintune.config import ROLES, DataConfig, UsageError
from domaintune.data.finding import TEXTS, Source, first_line, is_one_text

BATCH = 100  # rows of a table with columns that are in memory at once


class Row(NamedTuple):
    """One document.

    Attributes:
        place: in its source, from 1: the line a text begins at, the line of a .jsonl row, the number of another row.
        text: plain text; for instructions a JSON object of `prompt` and `completion` or of `messages`.
            None where there is nothing to learn: null, blank, or without any completion.
        group: what `data.group_column` holds.
    """

    place: int
    text: str | None
    group: str | None = None


@dataclass(frozen=True)
class Fields:
    """Which parts of the files are wanted."""

    format: str
    unit: str
    text_column: str
    columns: tuple[tuple[str, str], ...]
    group_column: str | None

    @classmethod
    def of(cls, config: DataConfig) -> "Fields":
        unit = config.unit or ("paragraph" if is_one_text(config.path) else "file")
        columns = tuple((role, config.columns.get(role, role)) for role in ROLES)
        return cls(config.format, unit, config.text_column, columns, config.group_column)

    def that_matter(self, kinds: set[str]) -> list[object]:
        """Those that decide what is read of such sources: the rest of a cache's key."""
        unit = self.unit if kinds & set(TEXTS) else None
        columns = (self.text_column if self.format == "text" else self.columns) if kinds - set(TEXTS) else None
        return [self.format, unit, columns, self.group_column]

    def names(self) -> list[str]:
        """The columns that rows may have, `group_column` not among them."""
        return [self.text_column] if self.format == "text" else [name for _, name in self.columns]


def read(source: Source, fields: Fields) -> Iterator[Row]:
    """The rows of a source, in their order.

    Raises:
        UsageError: the source is damaged or not what its suffix says; names file and place.
    """
    if source.kind in TEXTS:
        if fields.format != "text" or fields.group_column:
            what = "instructions are" if fields.format != "text" else "data.group_column is"
            raise UsageError(f"{source.name}: {what} read from rows with columns, which a text file does not have")
        yield from _texts(source, fields.unit)
        return
    for place, row in _ROWS[source.kind](source, fields):
        try:
            yield Row(place, _text(row, fields), _group(row, fields))
        except ValueError as error:
            raise UsageError(f"{_at(source, place)}: {error}") from None


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
            pieces = _paragraphs(lines)
        else:
            pieces = ((number, line) for number, line in enumerate(lines, start=1) if not line.isspace())
        for place, text in pieces:
            if "\0" in text:
                raise _nul(source, place + text[: text.index("\0")].count("\n"))
            yield Row(place, _not_blank(text.strip("\n")))


def _paragraphs(lines: IO[str]) -> Iterator[tuple[int, str]]:
    piece: list[str] = []
    number = 0
    for number, line in enumerate(lines, start=1):
        if not line.isspace():
            piece.append(line)
        elif piece:
            yield number - len(piece), "".join(piece)
            piece = []
    if piece:
        yield number + 1 - len(piece), "".join(piece)


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
    rows = (row for batch in dataset.select_columns(columns).iter(BATCH) for row in _by_row(batch))
    yield from enumerate(rows, start=1)


def _wanted(columns: list[str], fields: Fields, where: str) -> list[str]:
    """Those of a table's columns that are wanted. Raises UsageError where none of them can hold a text."""
    if not set(columns) & set(fields.names()):
        raise UsageError(f"{where}: {_no_column(fields, columns)}")
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


# What is wanted of a row. A ValueError says why it can't be had.


def _text(row: Any, fields: Fields) -> str | None:
    if not isinstance(row, dict):
        raise ValueError(f"a row must be an object like {{{json.dumps(fields.names()[0])}: ...}}, not {_type(row)}")
    if fields.format == "text":
        return _not_blank(_string(row, fields.text_column, _no_column(fields, row)))
    return _instruction(row, fields)


def _instruction(row: dict[str, Any], fields: Fields) -> str | None:
    """A canonical JSON object, so that the same row has the same hash from whatever file it comes."""
    prompt, completion, messages = (name for _, name in fields.columns)
    if messages in row and not (prompt in row and completion in row and row[messages] is None):
        chat = [] if row[messages] is None else row[messages]
        if not isinstance(chat, list) or not all(isinstance(turn, dict) for turn in chat):
            raise ValueError(f"field {messages!r} must be a list of objects with role and content")
        turns = [{key: _said(turn, key) for key in ("role", "content")} for turn in chat]
        answers = [turn for turn in turns if turn["role"] == "assistant" and _not_blank(turn["content"])]
        return json.dumps({"messages": turns}, ensure_ascii=False) if answers else None
    missing = _no_column(fields, row)
    pair = {"prompt": _string(row, prompt, missing) or "", "completion": _string(row, completion, missing)}
    return json.dumps(pair, ensure_ascii=False) if _not_blank(pair["completion"]) else None


def _said(turn: dict[str, Any], key: str) -> str:
    said = _string(turn, key, f"a message has no {key!r}")
    if said is None:
        raise ValueError(f"a message's {key!r} must be a string, not null")
    return said


def _group(row: Mapping[str, Any], fields: Fields) -> str | None:
    if fields.group_column is None:
        return None
    group = row.get(fields.group_column)
    if group is None or group == "":  # null as a .csv file writes it
        raise ValueError(f"nothing in {fields.group_column!r}, which data.group_column names; {_has(row)}")
    if isinstance(group, int | float):
        return str(group)
    return _string(row, fields.group_column, "")


def _string(row: Mapping[str, Any], name: str, missing: str) -> str | None:
    if name not in row:
        raise ValueError(missing)
    value = row[name]
    if value is not None and not isinstance(value, str):
        raise ValueError(f"field {name!r} must be a string, not {_type(value)}")
    if value is not None and "\0" in value:
        raise ValueError(f"field {name!r} holds a NUL character")
    try:
        (value or "").encode()
    except UnicodeEncodeError:
        raise ValueError(f"field {name!r} holds half a surrogate pair, which is no text") from None
    return value


def _not_blank(text: str | None) -> str | None:
    return None if not text or text.isspace() else text


def _no_column(fields: Fields, row: Any) -> str:
    if fields.format == "text":
        return f"no field {fields.text_column!r}; {_has(row)}; set data.text_column"
    prompt, completion, messages = (name for _, name in fields.columns)
    return f"neither {messages!r} nor both {prompt!r} and {completion!r}; {_has(row)}; set data.columns"


def _has(row: Any) -> str:
    return f"it has {', '.join(map(repr, row)) or 'none'}"


def _type(value: object) -> str:
    return "null" if value is None else type(value).__name__
