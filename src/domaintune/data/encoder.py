"""Texts -> token ids. A text never becomes a special token; only a sign that a program has put before a name does."""

import json
import re
from collections.abc import Collection, Mapping
from functools import cached_property
from itertools import chain
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from domaintune.errors import UsageError

Ids = npt.NDArray[np.int32]
Lengths = npt.NDArray[np.int64]

CONTEXT = -1  # in place of a token's bytes: it has no label
SIGN = "\0"  # stands before the name of a special token that is meant as one; no text that was read holds it


class Encoded(NamedTuple):
    """What documents become, end to end.

    Attributes:
        ids, counts: (T,) as `Tokens.ids` and `Tokens.byte_counts`.
        lengths: (D,) tokens of each document.
        sequences: (S,) tokens of each sequence where a document may have several.
        refused: {number of a document: why it can't be encoded}.
    """

    ids: Ids
    counts: Ids
    lengths: Lengths
    sequences: Lengths | None = None
    refused: Mapping[int, str] = MappingProxyType({})


class Specials(NamedTuple):
    """The ids that a tokenizer puts around a text.

    [CLS] and [SEP] (BERT), a beginning alone (Llama), an end alone (T5), or nothing (GPT-2).
    """

    before: Ids
    after: Ids

    def __len__(self) -> int:
        return self.before.size + self.after.size

    def around(self, ids: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        return np.concatenate([self.before, ids, self.after]).astype(np.int64)


def specials_of(tokenizer: Any) -> Specials:
    """Found by comparing a text with and without: transformers has no one name for it."""
    bare, whole = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (False, True))
    start = next((at for at in range(len(whole)) if whole[at : at + len(bare)] == bare), None)
    if start is None:
        raise UsageError("the tokenizer's special tokens do not stand around a text, which is what a task here takes")
    before, after = whole[:start], whole[start + len(bare) :]
    return Specials(np.array(before, np.int32), np.array(after, np.int32))


class Encoder:
    """Texts -> ids and byte counts; the library's threads work on the texts of a batch in parallel.

    Its copy of the tokenizer knows each special token by SIGN and its name. The name alone is plain text: some models
    of tokenizers (T5's) would find it in their vocabulary, whatever the library is told about special tokens.

    A byte-level tokenizer's tokens stand for as many bytes as their names have characters, which spares the offsets.
    That is checked for every text: where the bytes don't add up (a normalizer changed it), offsets are taken.

    Attributes:
        special: {name: id} of the special tokens.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._original = tokenizer.backend_tokenizer
        self._added = self._original.get_added_tokens_decoder()
        self.special = {token.content: number for number, token in self._added.items() if token.special}

    @cached_property
    def backend(self) -> Tokenizer:
        return _renamed(json.loads(self._original.to_str()), self.special)

    @cached_property
    def byte_level(self) -> bool:
        return '"ByteLevel"' in json.dumps(json.loads(self.backend.to_str())["pre_tokenizer"])

    @cached_property
    def bytes_of(self) -> npt.NDArray[np.int32]:
        """(V,) the bytes of text that a byte-level tokenizer's tokens stand for: special ones for none."""
        names = self._original.get_vocab(with_added_tokens=True)
        counts = np.zeros(max(names.values()) + 1, dtype=np.int32)
        for name, number in names.items():
            added = self._added.get(number)
            if added is None:
                counts[number] = len(name)
            elif not added.special:
                counts[number] = len(added.content.encode())
        return counts

    @cached_property
    def names(self) -> re.Pattern[str]:
        """Finds names of special tokens; of several at one place the longest."""
        longest_first = sorted(self.special, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

    @cached_property
    def signs(self) -> re.Pattern[str]:
        """Finds special tokens in a signed text."""
        return re.compile(f"{SIGN}(?:{self.names.pattern})")

    @cached_property
    def ending(self) -> re.Pattern[str]:
        """Finds the special tokens that a signed text ends with, and the white space behind each."""
        return re.compile(rf"(?:{self.signs.pattern}\s*)+\Z")

    def signed(self, text: str) -> str:
        """The text with SIGN before each name of a special token."""
        return self.names.sub(lambda found: SIGN + found[0], text)

    def first_special(self, text: str) -> int | None:
        """The id of the first special token in a signed text."""
        found = self.names.match(text, text.find(SIGN) + 1) if SIGN in text else None
        return self.special[found[0]] if found else None

    def ids(self, *parts: str) -> list[int]:
        """The ids of a text, or of parts that are encoded apart."""
        encoded: list[int] = self.encode(list(parts))[0].tolist()
        return encoded

    def encode(self, texts: list[str]) -> tuple[Ids, Ids, Lengths]:
        """All texts' token ids and byte counts, end to end, and each text's number of tokens."""
        encode = self.backend.encode_batch_fast if self.byte_level else self.backend.encode_batch
        encoded = encode(texts, add_special_tokens=False)
        lists = [one.ids for one in encoded]
        lengths = np.array([len(one) for one in lists], dtype=np.int64)
        ids = np.fromiter(chain.from_iterable(lists), dtype=np.int32, count=int(lengths.sum()))
        ends = np.cumsum(lengths)
        counts = self.bytes_of[ids]
        if self.byte_level:
            summed = np.diff(np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])[np.concatenate([[0], ends])])
            wrong = np.flatnonzero(summed != [self._size(text) for text in texts]).tolist()
            encoded = self.backend.encode_batch([texts[number] for number in wrong], add_special_tokens=False)
        else:
            wrong = list(range(len(texts)))
        for number, one in zip(wrong, encoded, strict=True):
            stops = np.array(one.offsets, dtype=np.int64).reshape(-1, 2)[:, 1]
            counts[ends[number] - lengths[number] : ends[number]] = self._byte_counts(texts[number], stops)
        return ids, counts, lengths

    def _size(self, text: str) -> int:
        """Bytes without those of special tokens, which are no part of a text."""
        if SIGN in text:
            text = self.signs.sub("", text)
        return len(text) if text.isascii() else len(text.encode())

    def _byte_counts(self, text: str, ends: npt.NDArray[np.int64]) -> Ids:
        """The bytes that each token adds to the text so far.

        Where several tokens share a character the first gets its bytes. What the tokenizer dropped at the end belongs
        to the last token, so that the sum is the text's bytes.
        """
        if text.isascii() and SIGN not in text:
            up_to = np.arange(len(text) + 1)
        else:
            sizes = np.array([len(char.encode()) for char in text], dtype=np.int64)
            for found in self.signs.finditer(text):
                sizes[found.start() : found.end()] = 0
            up_to = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        bytes_so_far = up_to[np.maximum.accumulate(ends)]
        if len(ends):
            bytes_so_far[-1] = up_to[-1]
        return np.diff(bytes_so_far, prepend=0).astype(np.int32)


def _renamed(content: dict[str, Any], special: Collection[str]) -> Tokenizer:
    """The tokenizer with SIGN before the names of its special tokens, under the ids that they had."""
    model = content["model"]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {_new(name, special): number for name, number in model["vocab"].items()}
    else:
        model["vocab"] = [[_new(name, special), score] for name, score in model["vocab"]]
    if model.get("unk_token") is not None:
        model["unk_token"] = _new(model["unk_token"], special)
    if model.get("merges"):
        model["merges"] = [merge for merge in model["merges"] if not _concerns(merge, special)]
    for token in content["added_tokens"]:
        token["normalized"] = token["normalized"] and not token["special"]  # a normalizer may take SIGN away
        token["content"] = _new(token["content"], special)
    return Tokenizer.from_str(json.dumps({**content, "truncation": None, "padding": None}))


def _new(name: str, special: Collection[str]) -> str:
    return SIGN + name if name in special else name


def _concerns(merge: str | list[str], special: Collection[str]) -> bool:
    """Whether a merge takes or makes a special token."""
    parts = merge.split(" ") if isinstance(merge, str) else merge
    return "".join(parts) in special or any(part in special for part in parts)
