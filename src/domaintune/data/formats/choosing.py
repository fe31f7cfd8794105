"""The formats by the names that `data.format` has."""

import functools
import hashlib
import importlib
import inspect
from pathlib import Path

from domaintune.config.schema import DataConfig
from domaintune.data.embedded import GROUPS
from domaintune.data.fields import Fields, Format, columns_of
from domaintune.data.finding import is_one_text
from domaintune.data.formats.entities import ENTITIES
from domaintune.data.formats.instructions import INSTRUCTIONS
from domaintune.data.formats.labels import LABELS
from domaintune.data.formats.pairs import PAIRS
from domaintune.data.formats.text import TEXT
from domaintune.errors import UsageError

FORMATS: dict[str, Format] = {each.name: each for each in (TEXT, INSTRUCTIONS, LABELS, ENTITIES, PAIRS)}


def format_of(name: str) -> Format:
    """A format by its name, or a person's own by MODULE.CLASS. Raises UsageError where there is no such class."""
    return FORMATS[name] if name in FORMATS else _own_format(name)


@functools.cache
def _own_format(name: str) -> Format:
    module, _, within = name.rpartition(".")
    try:
        format: Format = getattr(importlib.import_module(module), within)()
    except (ImportError, AttributeError, SyntaxError, TypeError, ValueError) as error:
        raise UsageError(f"data.format={name}: {error}") from error
    if not isinstance(format, Format):
        raise UsageError(f"data.format={name}: it is no domaintune.data.fields.Format")
    format.name = name
    format.version = hashlib.sha256(Path(str(inspect.getsourcefile(type(format)))).read_bytes()).hexdigest()
    return format


def fields_of(config: DataConfig, marks: tuple[str, ...] = ()) -> Fields:
    """Which parts of the files a config wants.

    Args:
        marks: the one that ends a document, and those that may begin one.
    """
    return Fields(
        format_of(config.format),
        config.unit or ("paragraph" if is_one_text(config.path) and not marks else "file"),
        config.text_column,
        columns_of(config.format, config.columns),
        config.group_column or (GROUPS.get(str(config.embedded)) if config.path is None else None),
        config.label_separator,
        tuple(sorted((config.roles or {}).items())),
        config.strict,
        marks,
    )
