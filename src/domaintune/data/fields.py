"""Which parts of the files are wanted, and under which names they stand."""

from collections.abc import Iterable
from dataclasses import dataclass

from domaintune.config.formats import ROLES
from domaintune.config.schema import DataConfig
from domaintune.data.embedded import GROUPS
from domaintune.data.finding import TEXTS, is_one_text

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


@dataclass(frozen=True)
class Fields:
    """Which parts of the files are wanted."""

    format: str
    unit: str
    text_column: str
    columns: tuple[tuple[str, str], ...]
    group_column: str | None
    label_separator: str | None = None
    roles: tuple[tuple[str, str], ...] = ()
    strict: bool = False
    marks: tuple[str, ...] = ()  # the one that ends a document, and those that may begin one
    keep: bool = False  # whether a row keeps all of its columns

    @classmethod
    def of(cls, config: DataConfig, marks: tuple[str, ...] = ()) -> "Fields":
        unit = config.unit or ("paragraph" if is_one_text(config.path) and not marks else "file")
        columns = tuple((role, config.columns.get(role, role)) for role in ROLES[config.format])
        group = config.group_column or (GROUPS.get(str(config.embedded)) if config.path is None else None)
        roles = tuple(sorted((config.roles or {}).items()))
        separator = config.label_separator
        return cls(config.format, unit, config.text_column, columns, group, separator, roles, config.strict, marks)

    def that_matter(self, kinds: set[str]) -> list[object]:
        """Those that decide what is read of such sources: the rest of a cache's key."""
        unit = self.unit if kinds & set(TEXTS) else None
        columns = (self.text_column if self.format == "text" else self.columns) if kinds - set(TEXTS) else None
        key: list[object] = [self.format, unit, columns, self.group_column, self.strict, self.marks]
        if self.format == "instructions":
            key += [self.roles]
        return [*key, self.text_column, self.label_separator] if self.format == "labels" else key

    def names(self) -> list[str]:
        """The columns that rows may have, `group_column` not among them."""
        text = [self.text_column] if self.format in ("text", "labels", "words") else []
        columns = [name for role, _ in self.columns if role not in KEYS for name in self.called(role)]
        return [*text, *columns]

    def lacks(self, columns: Iterable[str]) -> bool:
        """Whether a table lacks columns that every row needs. Of instructions, which have several forms, none is."""
        text = [self.text_column] if self.format in ("text", "labels") else []
        needed = dict(self.columns).values() if self.format in ("labels", "entities", "pairs") else []
        return not {*text, *needed} <= {*columns}

    def column(self, role: str) -> str:
        """What a role's column is called in the files."""
        return dict(self.columns)[role]

    def called(self, role: str) -> tuple[str, ...]:
        """All names that a role's column or key may have: the one that is set, or the usual ones."""
        name = self.column(role)
        return (name, *ALSO.get(role, ())) if name == role else (name,)
