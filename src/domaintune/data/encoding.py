"""Rows of the tasks beside the language model -> tokens on the disk, without the special tokens around them.

What stands in `Tokens.byte_counts` for each token:

- text (of masked LMs) and labels: the bytes that it stands for.
- entities: the number of its word in the row where it is the first of that word, else CONTEXT.
- pairs: CONTEXT in the source, the bytes that it stands for in the target.

A document of which no token is left (or no token of one side of a pair) has length 0.
"""

import json
from itertools import pairwise
from typing import Any

import numpy as np

from domaintune.config.schema import DataConfig
from domaintune.data.documents import Documents
from domaintune.data.encoder import Encoder, Ids, Lengths
from domaintune.data.rows import given
from domaintune.data.tokenizing import CONTEXT, Encoded, Tokens, store_tokens


def encode_rows(documents: Documents, tokenizer: Any, config: DataConfig, cache: str) -> Tokens:
    """The tokens of documents of text, labels, entities or pairs. A pair with an empty side has none."""
    encoder = Encoder(tokenizer)

    def encode(texts: list[str], _first: int) -> Encoded:
        if config.format == "entities":
            return Encoded(*encode_words([json.loads(text)["tokens"] for text in texts], encoder))
        if config.format == "pairs":
            return _pairs(texts, encoder, config.prefix)
        return Encoded(*encoder.encode([given(text) for text in texts] if config.format == "labels" else texts))

    return store_tokens(documents, tokenizer, [f"bare {config.format}", config.prefix], encode, cache)


def _pairs(texts: list[str], encoder: Encoder, prefix: str) -> Encoded:
    rows = [json.loads(text) for text in texts]
    sides = [text for row in rows for text in (prefix + row["source"], row["target"])]
    ids, counts, lengths = encoder.encode(sides)
    ends = np.cumsum(lengths)
    for end, length in zip(ends[::2].tolist(), lengths[::2].tolist(), strict=True):
        counts[end - length : end] = CONTEXT
    bare = encoder.encode([prefix])[0]
    some = [not np.array_equal(source, bare) for source in np.split(ids, ends[:-1])[::2]]
    whole = np.array(some) & (lengths[1::2] > 0)
    kept = np.repeat(np.repeat(whole, 2), lengths)
    return Encoded(ids[kept], counts[kept], (lengths[::2] + lengths[1::2]) * whole)


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
