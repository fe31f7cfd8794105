"""Files -> what a trained model is asked about, row by row, in their order. No labels are needed, and none are read."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from domaintune.config.schema import DataConfig
from domaintune.data.cells import not_blank
from domaintune.data.decoding import is_utf8
from domaintune.data.fields import Fields
from domaintune.data.finding import TABLES, Found, Source, find_sources
from domaintune.data.formats.choosing import fields_of, format_of
from domaintune.data.formats.entities import WORDS, split_words
from domaintune.data.left_out import BLANK, LeftOutRows, explained, joined
from domaintune.data.marking import without_marks
from domaintune.data.reading import read
from domaintune.errors import UsageError


@dataclass(frozen=True)
class Input:
    """One row.

    Attributes:
        place: `file:line`, where it came from.
        text: None where nothing stands there.
        words: of a text that is looked through for entities.
        turns: of a chat, the messages before the answer; `text` is the last of them.
        columns: what else stands in the row of a table.
        left_out: why a row can't be asked about, where something else than nothing stands in it.
    """

    place: str
    text: str | None
    words: tuple[str, ...] = ()
    turns: tuple[dict[str, Any], ...] = ()
    columns: Mapping[str, Any] = field(default_factory=dict)
    left_out: str | None = None


def find_inputs(path: Any, config: DataConfig, cache: str, encoding: str | None = None) -> Found:
    """The files behind a path, as `data.path` finds them. Raises UsageError where there are none.

    Args:
        config: of the run that trained the model.
        encoding: what a person says; None takes UTF-8, or that of training for a file that isn't UTF-8.
    """
    alone = replace(config, path=path, val_path=None, test_path=None, subset=None, split=None, format="text")
    try:
        found = find_sources(replace(alone, encoding=encoding or config.encoding), cache)
    except UsageError as error:
        raise UsageError(str(error).replace("data.path=", "input=")) from error
    if encoding is None:
        found.sources = [
            replace(source, encoding=None) if source.encoding and is_utf8(source) else source
            for source in found.sources
        ]
    return found


def input_fields(path: Any, config: DataConfig, text_column: str | None, unit: str | None) -> Fields:
    """Which parts of the files a model is given.

    Args:
        config: of the run that trained it.
        text_column, unit: what a person says; None takes the column that the model was trained on.
    """
    format, column = format_of(config.format).asking(config, text_column)
    columns = config.columns if format.name == config.format else {}
    alone = replace(config, path=path, text_column=column, unit=unit, format=format.name, columns=columns)
    return replace(fields_of(replace(alone, group_column=None)), format=format, keep=True)


def read_inputs(sources: list[Source], fields: Fields, marks: tuple[str, ...] = ()) -> Iterator[Input]:
    """Every row of the sources, also those in which nothing stands.

    Args:
        marks: what a text loses at its beginning and its end, where `fields` has no marks to cut it at.

    For entities a row is a list of words (in the column that had them in training, or in a CoNLL file), or a text
    whose words are parted by plain spaces, tabs and line ends.

    Raises:
        UsageError: a source is damaged or lacks the column; names file and place. No row can be asked about, and not
            since all of them are blank.
    """
    left_out: LeftOutRows = {}
    usable = False
    for source in sources:
        for row in read(source, fields):
            place, record = f"{source.name}:{row.place}", row.record
            words, turns, text = _asked(record, fields)
            if odd := record is None and (row.reason or BLANK) != BLANK:
                left_out = joined(left_out, str(row.reason), 1, [place], row.why)
            usable |= record is not None
            why = f"{row.reason}: {row.why}" if odd else None
            text = " ".join(words) if words else text and not_blank(without_marks(text, marks))
            kept = row.columns if source.kind in (*TABLES, "dataset") and row.columns else {}
            yield Input(place, text, words, turns, kept, why)
    if left_out and not usable:
        raise UsageError(f"no row can be asked about; left out are {explained(left_out)}")


def _asked(record: Any, fields: Fields) -> tuple[tuple[str, ...], tuple[dict[str, Any], ...], str | None]:
    """The words of a sentence, the messages of a chat, and the text that a record asks about."""
    if fields.format is WORDS and record is not None:
        return tuple(split_words(record) if isinstance(record, str) else record["tokens"]), (), None
    if record is None or isinstance(record, str):
        return (), (), record
    turns = tuple(record.get("messages", ()))
    return (), turns, turns[-1]["content"] if turns else record["prompt"]
