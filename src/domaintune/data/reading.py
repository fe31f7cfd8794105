"""Files -> rows: one text each, where it came from, and the group it belongs to. Nothing here knows of tokens.

Everything but a list in a .json file is read as a stream: a file of many gigabytes takes no more memory than its
longest row, a .parquet file than its largest row group.
"""

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

import numpy as np

from domaintune.data.cells import not_blank
from domaintune.data.decoding import opened, told_of_nul
from domaintune.data.fields import Fields
from domaintune.data.finding import TEXTS, Source, first_line
from domaintune.data.formats.entities import TAG, WORDS
from domaintune.data.left_out import UNEQUAL, UNFILLED, RowError
from domaintune.data.marking import unmarked
from domaintune.data.rows import Row, row_of
from domaintune.errors import UsageError

BATCH = 100  # rows of a table with columns that are in memory at once
SEPARATORS = {".csv": ",", ".tsv": "\t"}
OTHERS = {";": "semicolons", "\t": "tabs", "|": "bars", ",": "commas"}  # separators of tables elsewhere, in words
DOUBLED = re.compile(r'(^|\t)"[^\t]*""[^\t]*"(\t|$)')  # a field in quotes that holds a quote
# Floats of fewer than 64 bits as Arrow and as `datasets` call them.
SHORT_FLOATS = {"float": np.float32, "float32": np.float32, "halffloat": np.float16, "float16": np.float16}
METADATA = re.compile(r"#\s*[\w:.]+ = |#\s*new(par|doc)\b")  # what begins a line about a sentence in a CoNLL-U file


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
    if source.kind in fields.format.of_words:
        rows = _sentences
    elif rows is None:
        what = "data.group_column is" if fields.format.is_text else f"{fields.format.name} are"
        raise UsageError(f"{source.name}: {what} read from rows with columns, which a text file does not have")
    assert rows is not None
    for place, row in rows(source, fields):
        found = row_of(place, row, fields)
        if fields.strict and found.record is None and found.reason not in UNFILLED:
            raise UsageError(f"{_at(source, place)}: {found.why}")
        yield found


def is_plain(source: Source, fields: Fields) -> bool:
    """Whether the rows of a source are stretches of a text file: they are plain text whatever the format."""
    plain = fields.format.is_text and source.kind not in fields.format.of_words
    return source.kind in TEXTS and plain and not fields.group_column


def _at(source: Source, place: int) -> str:
    return f"{source.name}, {'line' if source.kind in ('.jsonl', '.csv', '.tsv', *TEXTS) else 'row'} {place}"


# Text files.


def _texts(source: Source, unit: str) -> Iterator[Row]:
    """The whole file, its paragraphs (runs of lines that are not blank) or its lines, placed by the line they start.

    Blank lines between them are layout, not rows without text.
    """
    with opened(source) as lines:
        if unit == "file":
            pieces = iter([(1, lines.read())])
        elif unit == "paragraph":
            pieces = ((number, "".join(piece)) for number, piece in _paragraphs(lines))
        else:
            pieces = ((number, line) for number, line in enumerate(lines, start=1) if not line.isspace())
        for place, text in pieces:
            if "\0" in text:
                raise told_of_nul(source, place + text[: text.index("\0")].count("\n"))
            yield Row(place, not_blank(text.strip("\n")))


def _paragraphs(
    lines: Iterable[str], is_layout: Callable[[str], bool] = str.isspace
) -> Iterator[tuple[int, list[str]]]:
    """(number of the first line, lines) of runs of lines between those that are blank, or layout in other ways."""
    piece: list[str] = []
    number = 0
    for number, line in enumerate(lines, start=1):
        if not is_layout(line):
            piece.append(line)
        elif piece:
            yield number - len(piece), piece
            piece = []
    if piece:
        yield number + 1 - len(piece), piece


# Tables: {column: value} of each row, with its place.


def _json_lines(source: Source, _: Fields) -> Iterator[tuple[int, Any]]:
    with opened(source) as lines:
        yield from _parsed_lines(source, lines)


def _parsed_lines(source: Source, lines: Iterable[str]) -> Iterator[tuple[int, Any]]:
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
    with opened(source) as stream:
        head = []
        for line in stream:
            head.append(line)
            if not line.isspace():
                break
        first = head[-1].strip() if head else ""
        if first.startswith("{") and first.endswith("}"):
            yield from enumerate((row for _, row in _parsed_lines(source, chain(head, stream))), start=1)
            return
        rows = _parse(source, "".join(head) + stream.read()) if first else []
    if not isinstance(rows, list):
        raise UsageError(f"{source.name}: one {type(rows).__name__}; rows are a list of objects, or one object a line")
    yield from enumerate(rows, start=1)


# Tables in text files.


def _csv(source: Source, fields: Fields) -> Iterator[tuple[int, Any]]:
    """Rows below a header, placed by the line they start at. Quoted texts may hold line ends."""
    csv.field_size_limit(2**31 - 1)  # the default refuses a text of more than 128 kB
    quoted, separator = _is_quoted(source), SEPARATORS[source.kind]
    with opened(source) as stream:
        lines = _Lines(_without_nul(source, stream), separator)
        # Without a quote character QUOTE_NONE follows.
        reader = csv.reader(lines, delimiter=separator, strict=True, quotechar='"' if quoted else None)
        line, first, alike = 0, (0, 0), 0
        try:
            header = _header(source, fields, reader, separator)
            line = reader.line_num
            lines.next_row()
            for row in reader:
                begins, line = line + 1, reader.line_num
                if row and len(row) != len(header):
                    raise UsageError(
                        f"{source.name}, line {begins}: {len(row)} fields, and the header has {len(header)}; "
                        + _ragged(quoted)
                    )
                if line > begins and len(header) > 1 and lines.all_have(len(header) - 1):
                    first, alike = (begins, line) if alike == 0 else first, alike + 1
                lines.next_row()
                if row:
                    yield begins, dict(zip(header, row, strict=True))
            if alike and source.quoting is None:
                source.note(_looks_like_rows(*first, alike - 1, len(header)))
        except csv.Error as error:
            raise UsageError(
                f"{source.name}, line {line + 1}: broken quotes ({error}); a field that begins with a quote "
                f"must end with one, and a quote inside it is written twice. Where quotes are letters, "
                f"data.quoting=none reads them"
            ) from error


class _Lines:
    """Lines on their way to a csv reader, and how many separators those of the current row have."""

    def __init__(self, lines: Iterator[str], separator: str) -> None:
        self._lines, self._separator = lines, separator
        self._counts: set[int] = set()

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            self._counts.add(line.count(self._separator))
            yield line

    def next_row(self) -> None:
        self._counts.clear()

    def all_have(self, separators: int) -> bool:
        return self._counts == {separators}


def _header(source: Source, fields: Fields, reader: Any, separator: str) -> list[str]:
    """The names of the columns; a first line in which a spreadsheet declares its separator is none of them."""
    header: list[str] = next((row for row in reader if row), [])
    if header == ["sep=", ""]:
        header = next((row for row in reader if row), [])
    if not header:
        return header
    where = f"{source.name}, line {reader.line_num}"
    other = next((words for sign, words in OTHERS.items() if sign != separator and sign in header[0]), None)
    if other is not None and len(header) == 1 and header[0] not in fields.names():
        raise UsageError(
            f"{where}: the header has one column, {header[0]!r}, whose parts seem to be parted by {other}; "
            f"a .csv file is parted by commas, a .tsv file by tabs"
        )
    _wanted(header, fields, where, "; the first line of a table names its columns")
    return header


def _ragged(quoted: bool) -> str:
    if quoted:
        return "a text that holds the separator or a line end must stand in quotes"
    return "quotes are letters here, so a text can't hold the separator; data.quoting=csv reads them as quotes"


def _looks_like_rows(begins: int, ends: int, more: int, columns: int) -> str:
    """What is said of a text whose lines may be rows that a quote has swallowed."""
    others = f"; so it is with {more:,} more rows" if more else ""
    return (
        f"lines {begins} to {ends} are one row, since a quote opens a text that ends there, though each of these lines "
        f"has {columns} columns of its own{others}. If they are rows, data.quoting=none reads quotes as letters"
    )


def _is_quoted(source: Source) -> bool:
    """Whether quotes hold fields together: in a .tsv file not where only without that each line has all columns."""
    if source.quoting is not None or source.kind != ".tsv":
        return source.quoting != "none"
    line = _line_of_a_letter(source)
    if line is not None:
        source.note(
            f"quotes are read as letters: with line {line} as a spreadsheet would quote it, not every line has the "
            f"header's columns; data.quoting=csv decides otherwise"
        )
    return line is None


def _line_of_a_letter(source: Source) -> int | None:
    """The first line that is a whole row only where a quote is a letter, if all lines have the header's columns.

    A line in which quotes are doubled is of a writer that quotes, as spreadsheets do.
    """
    columns, first = 0, None
    with opened(source) as stream:
        for number, line in enumerate(stream, start=1):
            row = line.rstrip("\n")
            if not row:
                continue
            columns = columns or row.count("\t") + 1
            if columns == 1 or row.count("\t") + 1 != columns:
                return None
            if DOUBLED.search(row) and _is_row(row, columns):
                return None
            if '"' in row and not _is_row(row, columns):
                first = first or number
    return first


def _is_row(line: str, columns: int) -> bool:
    """Whether a line that is read with its quotes is a row of so many columns."""
    try:
        return [len(row) for row in csv.reader([line], delimiter="\t", strict=True)] == [columns]
    except csv.Error:
        return False


# CoNLL files.


def _sentences(source: Source, fields: Fields) -> Iterator[tuple[int, Any]]:
    """A CoNLL file: a word a line, the tag in its last column, a blank line after each sentence.

    Columns are parted by tabs, or where a line has none by plain spaces. Where only words are wanted there need be no
    tag. A sentence in which a word or a tag is wrong has the place of that word.
    """
    tokens, tags = (fields.column(role) for role in ("tokens", "tags"))
    with opened(source) as stream:
        for place, lines in _paragraphs(_without_nul(source, stream), _is_layout):
            shapes = {_shape(line) for line in lines if not line.startswith("#")}
            numbered = enumerate(lines, start=place)
            words = [(number, _columns(line)) for number, line in numbered if not _is_comment(line, shapes, fields)]
            if len(words) > 2 and [row[0] for _, row in words] == [str(1 + each) for each in range(len(words))]:
                source.note(f"line {words[0][0]}: the first column counts the words, and words are read from it")
            untagged = next((number for number, row in words if len(row) < 2), None)
            if untagged is not None and fields.format is not WORDS:
                yield untagged, RowError(UNEQUAL, "one column; a word and its tag are two, parted by a tab or spaces")
            elif words:
                sentence = {tokens: [row[0] for _, row in words], tags: [row[-1] for _, row in words]}
                yield next((number for number, row in words if not _is_sound(row, fields)), words[0][0]), sentence


def _is_layout(line: str) -> bool:
    """Whether a line is between sentences. White space of other kinds than these may be a word."""
    return not line.strip(" \t\n") or line.startswith("-DOCSTART-")


def _columns(line: str) -> list[str]:
    line = line.rstrip(" \t\n")
    return [part.strip(" ") for part in line.split("\t")] if "\t" in line else re.split(" +", line.lstrip(" "))


def _shape(line: str) -> tuple[bool, int]:
    """What the lines of words have in common: what parts their columns, and how many there are."""
    return "\t" in line, len(_columns(line))


def _is_comment(line: str, shapes: set[tuple[bool, int]], fields: Fields) -> bool:
    """Whether a line is about its sentence, as `# text = ...` in a CoNLL-U file, and not a word that begins with #.

    Args:
        shapes: of the sentence's other lines.
    """
    if METADATA.match(line):
        return True
    if not line.startswith("# "):
        return False
    return _shape(line) not in shapes if shapes else not _is_sound(_columns(line), fields)


def _is_sound(columns: list[str], fields: Fields) -> bool:
    return bool(columns[0]) and (fields.format is WORDS or TAG.fullmatch(columns[-1]) is not None)


def _without_nul(source: Source, lines: Iterable[str]) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        if "\0" in line:
            raise told_of_nul(source, number)
        yield line


def _parquet(source: Source, fields: Fields) -> Iterator[tuple[int, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(source.name, pre_buffer=False) as file:
            columns = _wanted(file.schema_arrow.names, fields, source.name)
            features = _features(file.schema_arrow.metadata)
            named = {name: names for name in columns if (names := _names_of_classes(features.get(name)))}
            types = {name: str(file.schema_arrow.field(name).type) for name in columns}
            short = {name: SHORT_FLOATS[each] for name, each in types.items() if each in SHORT_FLOATS}
            batches = file.iter_batches(BATCH, columns=columns)
            rows = (row for batch in batches for row in batch.to_pylist())
            yield from enumerate((_as_written(_with_names(row, named), short) for row in rows), start=1)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{source.name}: damaged, or not a parquet file ({first_line(error)})") from error


def _dataset(source: Source, fields: Fields) -> Iterator[tuple[int, Any]]:
    dataset = source.dataset.with_format(None)  # a saved set may hide columns, or give tensors
    columns = _wanted(dataset.column_names, fields, source.name)
    features = dataset.features.to_dict()
    named = {name: names for name in columns if (names := _names_of_classes(features[name]))}
    types = {name: features[name].get("dtype") for name in columns if isinstance(features[name], dict)}
    short = {name: SHORT_FLOATS[each] for name, each in types.items() if each in SHORT_FLOATS}
    rows = (row for batch in dataset.select_columns(columns).iter(BATCH) for row in _by_row(batch))
    yield from enumerate((_as_written(_with_names(row, named), short) for row in rows), start=1)


def _features(metadata: Mapping[bytes, bytes] | None) -> dict[str, Any]:
    """What `datasets` writes about the columns into the schema of a file: {column: feature}; empty where it didn't."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def _names_of_classes(feature: Any) -> list[str] | None:
    """Of a column of numbers that stand for classes, or of lists of them."""
    if isinstance(feature, list) and len(feature) == 1:  # how lists were written once
        return _names_of_classes(feature[0])
    if not isinstance(feature, dict):
        return None
    if feature.get("_type") != "ClassLabel":
        return _names_of_classes(feature.get("feature"))
    names = feature.get("names")
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def _with_names(row: dict[str, Any], named: Mapping[str, list[str]]) -> dict[str, Any]:
    """The row with the names of classes in place of their numbers."""
    return {name: _by_name(value, named[name]) if name in named else value for name, value in row.items()}


def _as_written(row: dict[str, Any], short: Mapping[str, Any]) -> dict[str, Any]:
    """The row with floats of fewer than 64 bits as the shortest number that stands for them: 4.7, as in a text file.

    Args:
        short: {column: its type}.
    """
    return row | {name: float(str(kind(row[name]))) for name, kind in short.items() if row[name] is not None}


def _by_name(value: Any, names: list[str]) -> Any:
    if isinstance(value, list):
        return [_by_name(each, names) for each in value]
    if not isinstance(value, int) or value >= len(names):
        return value  # a text already, or a number that has no name
    return names[value] if value >= 0 else None


def _wanted(columns: list[str], fields: Fields, where: str, hint: str = "") -> list[str]:
    """Those of a table's columns that are wanted. Raises UsageError where none of them can hold a text."""
    if not set(columns) & set(fields.names()):
        raise UsageError(f"{where}: {fields.format.no_column(columns, fields)}{hint}")
    wanted = [name for name in columns if name in (*fields.names(), fields.group_column)]
    if twice := [name for name in wanted if wanted.count(name) > 1]:
        raise UsageError(f"{where}: two columns are called {twice[0]!r}")
    # The message on a row without those that it needs names all that are there.
    return columns if fields.keep or fields.format.lacks(columns, fields) else wanted


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
