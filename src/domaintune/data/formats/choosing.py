"""The formats by the names that `data.format` has."""

from domaintune.config.schema import DataConfig
from domaintune.data.embedded import GROUPS
from domaintune.data.fields import Fields, Format, columns_of
from domaintune.data.finding import is_one_text
from domaintune.data.formats.entities import ENTITIES
from domaintune.data.formats.instructions import INSTRUCTIONS
from domaintune.data.formats.labels import LABELS
from domaintune.data.formats.pairs import PAIRS
from domaintune.data.formats.text import TEXT

FORMATS: dict[str, Format] = {each.name: each for each in (TEXT, INSTRUCTIONS, LABELS, ENTITIES, PAIRS)}


def fields_of(config: DataConfig, marks: tuple[str, ...] = ()) -> Fields:
    """Which parts of the files a config wants.

    Args:
        marks: the one that ends a document, and those that may begin one.
    """
    return Fields(
        FORMATS[config.format],
        config.unit or ("paragraph" if is_one_text(config.path) and not marks else "file"),
        config.text_column,
        columns_of(config.format, config.columns),
        config.group_column or (GROUPS.get(str(config.embedded)) if config.path is None else None),
        config.label_separator,
        tuple(sorted((config.roles or {}).items())),
        config.strict,
        marks,
    )
