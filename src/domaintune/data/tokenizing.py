"""Documents -> token ids on the disk, encoded once per tokenizer, with the bytes that each token stands for.

What they become is their format's. What a person wrote is text, also where it reads like a special token.
"""

import hashlib
import json
import os
import re
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from domaintune.config.schema import DataConfig
from domaintune.data.documents import Documents
from domaintune.data.encoder import CONTEXT, Encoded, Encoder
from domaintune.data.fields import strings_in
from domaintune.data.formats.choosing import format_of
from domaintune.data.formats.text import TEXT
from domaintune.errors import RunError
from domaintune.files.cache import cached
from domaintune.files.progress import progress

FORMAT = 5  # raise when the same documents and tokenizer would give other tokens
BATCH_BYTES = 2_000_000  # handed to the tokenizer at once, which works on the texts in parallel


@dataclass(frozen=True)
class Tokens:
    """The tokens of all documents, end to end. They stay on the disk; each access reads what it needs.

    Attributes:
        folder: the cache entry they lie in.
    """

    folder: Path

    @cached_property
    def starts(self) -> npt.NDArray[np.int64]:
        """(D + 1,) document d is tokens starts[d] to starts[d + 1]."""
        return np.load(self.folder / "starts.npy")

    @cached_property
    def has_context(self) -> bool:
        """Whether some tokens have no label."""
        return (self.folder / "has_context").exists()

    @cached_property
    def _found(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.folder / "found.json").read_text(encoding="utf-8"))
        return content

    @property
    def refused(self) -> dict[int, str]:
        """{document: why} of those that a chat template refuses; they have no tokens."""
        return {int(number): why for number, why in self._found["refused"].items()}

    @property
    def marked(self) -> dict[str, int]:
        """{special token: how many documents hold its name as text}."""
        return dict(self._found["marked"])

    @property
    def empty(self) -> npt.NDArray[np.int64]:
        """The documents without a token."""
        return np.flatnonzero(np.diff(self.starts) == 0)

    def sequences(
        self, documents: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The document, the first token and the end of each sequence of some documents, in the order of the disk.

        A document is one sequence, unless a chat template makes several of its answers.
        """
        if not (self.folder / "cuts.npy").exists():
            return documents, self.starts[documents], self.starts[documents + 1]
        cuts = np.load(self.folder / "cuts.npy")
        of = np.searchsorted(self.starts, cuts[:-1], side="right") - 1
        chosen = np.isin(of, documents)
        return of[chosen], cuts[:-1][chosen], cuts[1:][chosen]

    def ids(self, first: int, end: int) -> npt.NDArray[np.int32]:
        """(end - first,) token ids."""
        return self._read("ids", first, end)

    def byte_counts(self, first: int, end: int) -> npt.NDArray[np.int32]:
        """(end - first,) UTF-8 bytes of the text that each token stands for, or CONTEXT.

        Of plain text they add up to the document's bytes.
        """
        return self._read("byte_counts", first, end)

    def _read(self, name: str, first: int, end: int) -> npt.NDArray[np.int32]:
        # Not a memory map: its pages would count as this process's memory, up to the whole corpus after an epoch.
        # Opened once, not for each of the hundreds of windows of a batch. Nobody seeks in it: workers share it.
        if name not in self._files:
            self._files[name] = (self.folder / f"{name}.bin").open("rb", buffering=0)
        tokens = np.empty(end - first, dtype=np.int32)
        left, place = tokens.view(np.uint8).data, first * tokens.itemsize
        while left:  # Linux hands over no more than 2 GiB at once
            read = os.preadv(self._files[name].fileno(), [left], place)
            if not read:
                raise RunError(f"{self.folder / name}.bin is damaged: delete {self.folder}")
            left, place = left[read:], place + read
        return tokens

    @cached_property
    def _files(self) -> dict[str, BinaryIO]:
        return {}

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder}  # open files aren't handed to other processes


Encode = Callable[[list[Any], int], Encoded]


def tokenize(documents: Documents, tokenizer: Any, format: str, cache: str) -> Tokens:
    """The documents as a language model learns from them, encoded by a fast tokenizer of transformers.

    Args:
        format: `text`, `instructions` or a person's own.
    """
    learnt, encoder = format_of(format), Encoder(tokenizer)

    def encode(records: list[Any], first: int) -> Encoded:
        return learnt.encode_documents(records, first, tokenizer, encoder)

    template = None if learnt is TEXT else tokenizer.chat_template
    return store_tokens(documents, tokenizer, [format, template], encode, cache)


def tokenize_examples(documents: Documents, tokenizer: Any, config: DataConfig, cache: str) -> Tokens:
    """The documents without the special tokens around them. One with nothing to learn from has none."""
    format, encoder = format_of(config.format), Encoder(tokenizer)

    def encode(records: list[Any], _first: int) -> Encoded:
        return format.encode(records, encoder, config.prefix)

    return store_tokens(documents, tokenizer, [f"bare {format.name}", config.prefix], encode, cache)


def store_tokens(documents: Documents, tokenizer: Any, kind: list[Any], encode: Encode, cache: str) -> Tokens:
    """The tokens that `encode` makes of the documents; from the cache where they are there.

    Args:
        kind: what besides documents and tokenizer decides about them.
        encode: (records, number of the first) -> what they become.
    """
    format, *rest = kind
    key = {
        "format": FORMAT,
        "documents": documents.folder.name,
        "kind": format,
        "tokenizer": tokenizer_sha256(tokenizer, *rest),
    }
    names = Encoder(tokenizer).names
    return Tokens(cached(cache, "tokens", key, lambda folder: _write(folder, documents, encode, names)))


def tokenizer_sha256(tokenizer: Any, *besides: Any) -> str:
    """Of everything that decides which tokens a text becomes: the tokenizer, and what there is besides."""
    special = {"eos": tokenizer.eos_token_id, **tokenizer.special_tokens_map}
    if special.get("pad_token") == tokenizer.eos_token:  # as an export has it: it decides about no text
        del special["pad_token"]
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    backend |= {"truncation": None, "padding": None}  # they change with every call, and are not used here
    whole = json.dumps([backend, special, *besides], sort_keys=True, default=str)
    return hashlib.sha256(whole.encode()).hexdigest()


def _write(folder: Path, documents: Documents, encode: Encode, names: re.Pattern[str]) -> None:
    starts, cuts, has_context = array("q", [0]), array("q", [0]), False
    refused: dict[int, str] = {}
    marked: Counter[str] = Counter()
    with (
        (folder / "ids.bin").open("wb") as ids_file,
        (folder / "byte_counts.bin").open("wb") as counts_file,
        progress("tokenizing", int(documents.starts[-1]), "bytes") as advance,
    ):
        for first, end in documents.batches(BATCH_BYTES):
            records = list(documents.records(first, end))
            encoded = encode(records, first)
            has_context |= bool((encoded.counts == CONTEXT).any())
            encoded.ids.tofile(ids_file)
            encoded.counts.tofile(counts_file)
            starts.extend((np.cumsum(encoded.lengths) + starts[-1]).tolist())
            sequences = encoded.lengths if encoded.sequences is None else encoded.sequences
            cuts.extend((np.cumsum(sequences) + cuts[-1]).tolist())
            refused |= encoded.refused
            for record in records:
                marked.update({name for text in strings_in(record) for name in names.findall(text)})
            advance(int(documents.starts[end] - documents.starts[first]))
    np.save(folder / "starts.npy", np.frombuffer(starts, dtype=np.int64))
    if len(np.unique(cuts)) > len(np.unique(starts)):
        np.save(folder / "cuts.npy", np.unique(cuts))
    (folder / "found.json").write_text(json.dumps({"refused": refused, "marked": marked}), encoding="utf-8")
    if has_context:
        (folder / "has_context").touch()


def holds_chats(documents: Documents) -> bool:
    """Whether some rows of instructions are conversations, which want a chat template."""
    return any("messages" in record for batch in documents.batches(BATCH_BYTES) for record in documents.records(*batch))
