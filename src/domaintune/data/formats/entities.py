"""Words with a tag each: B-kind where an entity begins, I-kind in it, O outside."""

import re
from collections.abc import Collection, Iterable
from itertools import pairwise
from typing import Any

import numpy as np

from domaintune.config.schema import DataConfig
from domaintune.data.cells import checked, has, is_missing, is_unfilled, list_in, string_in, type_name
from domaintune.data.encoder import CONTEXT, Encoded, Encoder, Ids, Lengths
from domaintune.data.fields import Fields, Format, Record
from domaintune.data.finding import CONLL
from domaintune.data.left_out import BLANK, MISSING_FIELD, NO_LABEL, UNEQUAL, UNREADABLE_TAG, WRONG_TYPE, RowError

TAG = re.compile(r"O|[BIES]-.+")
APART = " \t\r\n"  # between words; other white space, as in "10 000" with a no-break space, is a part of its word
TAGGED = (".conll", ".tsv")  # read as words with tags where words are wanted; a .txt may as well be plain text


class EntitiesFormat(Format):
    """`tokens`, and as many `tags`."""

    name = "entities"
    needs_columns = True
    is_given = True
    of_words: Collection[str] = CONLL

    def parse(self, row: dict[str, Any], fields: Fields) -> Record:
        words, tags = (_listed(row, role, column) for role, column in fields.columns)
        if not words and not tags:
            raise RowError(BLANK, f"nothing stands in {fields.column('tokens')!r}")
        tokens = _strings(words, fields.column("tokens"), WRONG_TYPE)
        if is_missing(row[fields.column("tags")]) or any(is_missing(tag) for tag in tags):
            raise RowError(NO_LABEL, f"a tag is missing in {fields.column('tags')!r}")
        if number := next((tag for tag in tags if isinstance(tag, int | float)), None):
            raise RowError(UNREADABLE_TAG, _about_number(number, fields.column("tags")))
        names = [name.strip() for name in _strings(tags, fields.column("tags"), UNREADABLE_TAG)]
        if len(tokens) != len(names):
            raise RowError(UNEQUAL, f"{len(tokens)} tokens and {len(names)} tags")
        if wrong := next((tag for tag in names if not TAG.fullmatch(tag)), None):
            raise RowError(UNREADABLE_TAG, f"the tag {wrong!r} is neither O nor a kind after B-, I-, E- or S-")
        return {"tokens": tokens, "tags": names}

    def given(self, record: dict[str, Any]) -> str:
        return " ".join(record["tokens"])

    def asking(self, config: DataConfig, text_column: str | None) -> tuple[Format, str]:
        return WORDS, text_column or config.text_column

    def encode(self, records: list[dict[str, Any]], encoder: Encoder, prefix: str) -> Encoded:
        """Where a token is the first of a word, its count is the number of that word in the row, else CONTEXT."""
        return Encoded(*encode_words([record["tokens"] for record in records], encoder))


class WordsFormat(EntitiesFormat):
    """Words whose tags are not known, of rows that a trained model is asked about."""

    has_text = True
    is_text = True
    of_words = TAGGED

    def parse(self, row: dict[str, Any], fields: Fields) -> Record:
        """Those of a text are parted as `split_words` does."""
        column = fields.column("tokens")
        listed = list_in(row.get(column))
        if listed is not None:
            words = _strings(listed, column, WRONG_TYPE)
        else:
            words = split_words(string_in(row, fields.text_column, self.no_column(row, fields)) or "")
        if not words:
            raise RowError(BLANK, "nothing stands in it")
        return {"tokens": words}

    def lacks(self, columns: Iterable[str], fields: Fields) -> bool:
        return False


def _about_number(tag: object, column: str) -> str:
    return (
        f"the tag {tag} in {column!r} is a number; names are read of a column in a parquet file or a data set that is "
        f"one of ClassLabels"
    )


def _listed(row: dict[str, Any], role: str, column: str) -> list[Any]:
    if column not in row:
        raise RowError(MISSING_FIELD, f"no field {column!r}; {has(row)}; set data.columns.{role}")
    value = row[column]
    if is_unfilled(value):
        return []
    listed = list_in(value)
    if listed is None:
        raise RowError(WRONG_TYPE, f"field {column!r} must be a list of strings, not {type_name(value)}")
    return listed


def _strings(values: list[Any], column: str, reason: str) -> list[str]:
    """None of them empty; `reason` is that of a row in which one is."""
    found = [checked(None if is_missing(value) else value, f"a member of {column!r}") or "" for value in values]
    if not all(value.strip(APART) for value in found):
        raise RowError(reason, f"field {column!r} holds an empty string")
    return found


def split_words(text: str) -> list[str]:
    """The words of a text, parted by plain spaces, tabs and line ends alone, as they are in files of words."""
    return [word for word in re.split(f"[{APART}]+", text) if word]


def encode_words(sentences: list[list[str]], encoder: Encoder) -> tuple[Ids, Ids, Lengths]:
    """Sentences as they are written, with a space between words: what the model is given when it is used.

    (Handing a tokenizer the words one by one gives other tokens where it is one of bytes, as GPT-2's.)
    """
    encoded = encoder.backend.encode_batch([" ".join(words) for words in sentences], add_special_tokens=False)
    numbers = [word_numbers(words, one.offsets) for words, one in zip(sentences, encoded, strict=True)]
    ids = np.array([number for one in encoded for number in one.ids], dtype=np.int32)
    return ids, np.concatenate(numbers), np.array([len(one.ids) for one in encoded], dtype=np.int64)


def word_numbers(words: list[str], offsets: list[tuple[int, int]]) -> Ids:
    """(T,) for each token of the words joined by spaces the number of its word; CONTEXT unless it is the word's first.

    Args:
        offsets: (T, 2) first character and end of each token; a space before a word may be of the word's first token.
    """
    ends = np.cumsum([len(word) + 1 for word in words])  # with the space behind
    last = np.array([max(start, end - 1) for start, end in offsets], dtype=np.int64)  # a character that is no space
    numbers = np.searchsorted(ends, last, side="right").astype(np.int32)
    # A token that is only the space between two words, or of no character, is of none.
    blank = [end <= start or (end - start == 1 and start + 1 in ends) for start, end in offsets]
    numbers[np.array(blank, dtype=bool)] = CONTEXT
    seen = CONTEXT
    for place, number in enumerate(numbers.tolist()):
        if number <= seen:
            numbers[place] = CONTEXT
        seen = max(seen, number)
    return numbers


def cut_at_words(numbers: Ids, most: int) -> list[tuple[int, int]]:
    """Cuts a sentence's tokens into stretches of at most `most`, before the first token of a word.

    A word of more tokens than that is cut anywhere.
    """
    cuts = [0]
    while len(numbers) - cuts[-1] > most:
        latest = cuts[-1] + most
        starts = np.flatnonzero(numbers[cuts[-1] + 1 : latest + 1] != CONTEXT)
        cuts.append(cuts[-1] + 1 + int(starts[-1]) if len(starts) else latest)
    return list(pairwise([*cuts, len(numbers)]))


ENTITIES, WORDS = EntitiesFormat(), WordsFormat()
