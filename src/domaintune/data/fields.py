"""What of the files is wanted: the format of their rows, and the names under which its parts stand."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from domaintune.config.formats import ROLES
from domaintune.config.schema import DataConfig
from domaintune.data.cells import has
from domaintune.data.encoder import Encoded, Encoder
from domaintune.data.finding import TEXTS

# What is kept of a row: a text, or texts and lists that JSON can hold.
Record = str | dict[str, Any]

KEYS = ("role", "content")  # of a message; no columns of a row
# Further names of columns and keys, unless data.columns gives them another one.
ALSO = {
    "messages": ("conversations", "conversation"),
    "input": ("context",),
    "output": ("response",),
    "system": ("system_prompt",),
    "role": ("from", "speaker", "author"),
    "content": ("value", "text", "parts"),
}


class Format:
    """What a row holds: how a record is made of it, what of that a model is given, and how it is encoded.

    Attributes:
        name: as `data.format` has it.
        has_text: whether `data.text_column` is one of its columns.
        needs_columns: whether every row needs all columns that it may have.
        is_text: whether a text file holds its records as they are.
        is_given: whether a row is something that a model is given, and something to learn from it.
        of_words: the kinds of text files that hold a word a line.
        version: of a person's own format the SHA-256 of its module, since its records are others when that changes.
    """

    name: str
    version = ""
    has_text = False
    needs_columns = False
    is_text = False
    is_given = False
    of_words: Collection[str] = ()

    def parse(self, row: dict[str, Any], fields: "Fields") -> Record:
        """The record of a row. Raises RowError where there is none."""
        raise NotImplementedError

    def given(self, record: Any) -> str:
        """What a model is given of a record."""
        raise NotImplementedError

    def compared(self, record: Any) -> str:
        """By what two records are near duplicates."""
        return self.given(record)

    def unused(self, record: Any) -> int:
        """How many messages of a record nothing is learnt from."""
        return 0

    def no_column(self, row: Iterable[Any], fields: "Fields") -> str:
        """The message on a row, or the columns of a table, that has none of its columns."""
        return f"none of {', '.join(map(repr, fields.names()))}; {has(row)}; set data.columns"

    def lacks(self, columns: Iterable[str], fields: "Fields") -> bool:
        """Whether a table lacks columns that every row needs."""
        text = [fields.text_column] * self.has_text
        needed = dict(fields.columns).values() if self.needs_columns else []
        return not {*text, *needed} <= {*columns}

    def settings(self, fields: "Fields") -> list[object]:
        """The settings that decide what its records are, beside those of every format."""
        return []

    def encode(self, records: list[Any], encoder: Encoder, prefix: str) -> Encoded:
        """The tokens of records without special tokens around them; none of one that has nothing to learn from.

        Args:
            prefix: stands before what a model is given.
        """
        raise NotImplementedError

    def encode_documents(self, records: list[Any], first: int, tokenizer: Any, encoder: Encoder) -> Encoded:
        """The tokens of records as a language model learns them, with what stands around them.

        Args:
            first: the number of the first record.
        """
        raise NotImplementedError

    def asking(self, config: DataConfig, text_column: str | None) -> tuple["Format", str]:
        """The format of rows that a trained model is asked about, and the column of their text.

        Args:
            config: the model was trained with.
            text_column: what a person says.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Fields:
    """Which parts of the files are wanted. `formats.choosing.fields_of` makes one of a config."""

    format: Format
    unit: str
    text_column: str
    columns: tuple[tuple[str, str], ...]
    group_column: str | None
    label_separator: str | None = None
    roles: tuple[tuple[str, str], ...] = ()
    strict: bool = False
    marks: tuple[str, ...] = ()  # the one that ends a document, and those that may begin one
    keep: bool = False  # whether a row keeps all of its columns

    def that_matter(self, kinds: set[str]) -> list[object]:
        """Those that decide what is read of such sources: the rest of a cache's key."""
        unit = self.unit if kinds & set(TEXTS) else None
        columns = (self.columns or self.text_column) if kinds - set(TEXTS) else None
        key: list[object] = [self.format.name, unit, columns, self.group_column, self.strict, self.marks]
        own = [self.format.version, self.text_column, self.label_separator] if self.format.version else []
        return [*key, *self.format.settings(self), *own]

    def names(self) -> list[str]:
        """The columns that rows may have, `group_column` not among them."""
        columns = [name for role, _ in self.columns if role not in KEYS for name in self.called(role)]
        return [*[self.text_column] * self.format.has_text, *columns]

    def column(self, role: str) -> str:
        """What a role's column is called in the files."""
        return dict(self.columns)[role]

    def called(self, role: str) -> tuple[str, ...]:
        """All names that a role's column or key may have: the one that is set, or the usual ones."""
        name = self.column(role)
        return (name, *ALSO.get(role, ())) if name == role else (name,)


def columns_of(format: str, renamed: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """(role, what its column is called) of a format's columns."""
    return tuple((role, renamed.get(role, role)) for role in ROLES.get(format, renamed))


def strings_in(value: Any) -> Iterator[str]:
    """The texts in a record, without the names of roles and classes."""
    if isinstance(value, dict):
        value = [each for name, each in value.items() if name not in ("role", "tags", "label", "labels")]
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from strings_in(each)
