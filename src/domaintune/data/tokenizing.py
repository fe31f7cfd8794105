"""Documents -> token ids on the disk, encoded once per tokenizer, with the bytes that each token stands for.

A document of plain text is what the tokenizer puts before a text, the text's tokens, and one end-of-text token. Of
instructions only the answers are learnt: every other token is context, which has no label. What a person wrote is text,
also where it reads like a special token.
"""

import hashlib
import json
import os
import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from domaintune.data.chatting import Chats, Segment
from domaintune.data.documents import Documents
from domaintune.data.encoder import SIGN, Encoder, Ids, Lengths, specials_of
from domaintune.errors import RunError
from domaintune.files.cache import cached
from domaintune.files.progress import progress

FORMAT = 5  # raise when the same documents and tokenizer would give other tokens
BATCH_BYTES = 2_000_000  # handed to the tokenizer at once, which works on the texts in parallel
CONTEXT = -1  # in place of a token's bytes: it has no label


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


Encode = Callable[[list[str], int], Encoded]


def tokenize(documents: Documents, tokenizer: Any, format: str, cache: str) -> Tokens:
    """Encodes the documents with a fast tokenizer of transformers; from the cache where that was done before.

    Args:
        format: `text` or `instructions`.
    """
    template = tokenizer.chat_template if format == "instructions" else None
    encoder, before = Encoder(tokenizer), specials_of(tokenizer).before

    def encode(texts: list[str], first: int) -> Encoded:
        if format == "instructions":
            return _conversations(texts, first, tokenizer, encoder, before)
        return _framed(*encoder.encode(texts), before, tokenizer.eos_token_id)

    return store_tokens(documents, tokenizer, [format, template], encode, cache)


def store_tokens(documents: Documents, tokenizer: Any, kind: list[Any], encode: Encode, cache: str) -> Tokens:
    """The tokens that `encode` makes of the documents; from the cache where they are there.

    Args:
        kind: what besides documents and tokenizer decides about them.
        encode: (texts, number of the first) -> what they become.
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
            texts = list(documents.texts(first, end))
            encoded = encode(texts, first)
            has_context |= bool((encoded.counts == CONTEXT).any())
            encoded.ids.tofile(ids_file)
            encoded.counts.tofile(counts_file)
            starts.extend((np.cumsum(encoded.lengths) + starts[-1]).tolist())
            sequences = encoded.lengths if encoded.sequences is None else encoded.sequences
            cuts.extend((np.cumsum(sequences) + cuts[-1]).tolist())
            refused |= encoded.refused
            for text in texts:
                marked.update(set(names.findall(text)))
            advance(int(documents.starts[end] - documents.starts[first]))
    np.save(folder / "starts.npy", np.frombuffer(starts, dtype=np.int64))
    if len(np.unique(cuts)) > len(np.unique(starts)):
        np.save(folder / "cuts.npy", np.unique(cuts))
    (folder / "found.json").write_text(json.dumps({"refused": refused, "marked": marked}), encoding="utf-8")
    if has_context:
        (folder / "has_context").touch()


def _framed(ids: Ids, counts: Ids, lengths: Lengths, before: Ids, eos: int) -> Encoded:
    """`before` and an end-of-text token around each document that has tokens. They stand for no bytes."""
    ends, some = np.cumsum(lengths), lengths > 0
    frame = np.array([*before, eos], dtype=np.int32)
    places = np.repeat(np.stack([ends - lengths, ends], axis=1)[some], [before.size, 1], axis=1).ravel()
    ids = np.insert(ids, places, np.tile(frame, int(some.sum())))
    return Encoded(ids, np.insert(counts, places, 0), lengths + some * frame.size)


# Instructions.


def _conversations(texts: list[str], first: int, tokenizer: Any, encoder: Encoder, before: Ids) -> Encoded:
    """Rows of instructions, with CONTEXT in place of byte counts outside the answers.

    Args:
        before: what the tokenizer puts before a prompt. Before a chat stands what its template writes.
    """
    chats, rows, openings, refused = Chats(tokenizer, encoder), [], [], {}
    for number, text in enumerate(texts, first):
        try:
            row = json.loads(text)
            rows.append(_sequences(row, chats))
            openings.append(before if "prompt" in row else _NOTHING[0])
        except ValueError as error:
            rows.append([])
            openings.append(_NOTHING[0])
            refused[number] = str(error)
    every = [segment for row in rows for sequence in row for segment in sequence]
    ids, counts, lengths = encoder.encode([segment.text for segment in every])
    cuts = np.cumsum(lengths)[:-1]
    parts = iter(zip(np.split(ids, cuts), np.split(counts, cuts), strict=True))
    joined = [
        [_whole(sequence, parts, tokenizer, opening, encoder) for sequence in row]
        for row, opening in zip(rows, openings, strict=True)
    ]
    flat = [sequence for row in joined for sequence in row] or [_NOTHING]
    return Encoded(
        ids=np.concatenate([one for one, _ in flat]),
        counts=np.concatenate([one for _, one in flat]),
        lengths=np.array([sum(len(one) for one, _ in row) for row in joined], dtype=np.int64),
        sequences=np.array([len(one) for row in joined for one, _ in row], dtype=np.int64),
        refused=refused,
    )


_NOTHING = (np.empty(0, np.int32), np.empty(0, np.int32))


def _sequences(row: dict[str, Any], chats: Chats) -> list[list[Segment]]:
    """What of a row is given and what is learnt.

    A prompt and its completion are joined as they are, since a person who wants a space or a line end between them
    has put it there. The parts are encoded apart, as a prompt is when the model is used.
    """
    if "prompt" in row:
        return [[Segment(row["prompt"], learnt=False), Segment(row["completion"])]]
    return chats.sequences(row["messages"])


def _whole(
    sequence: list[Segment], parts: Iterator[tuple[Ids, Ids]], tokenizer: Any, opening: Ids, encoder: Encoder
) -> tuple[Ids, Ids]:
    """The next parts joined behind `opening`, closed by an end-of-text token unless the template has ended with one."""
    found = [(opening, np.full_like(opening, CONTEXT))]
    found += [
        (ids, _of_answer(segment.text, ids, counts, encoder) if segment.learnt else np.full_like(counts, CONTEXT))
        for segment, (ids, counts) in zip(sequence, parts, strict=False)
    ]
    if not sequence[-1].text.rstrip().endswith(f"{SIGN}{tokenizer.eos_token}"):
        closing = 0 if sequence[-1].learnt else CONTEXT
        found.append((np.array([tokenizer.eos_token_id], np.int32), np.array([closing], np.int32)))
    return np.concatenate([ids for ids, _ in found]), np.concatenate([counts for _, counts in found])


def _of_answer(text: str, ids: Ids, counts: Ids, encoder: Encoder) -> Ids:
    """The counts without the white space that a template writes behind the signs that end an answer."""
    if ending := encoder.ending.search(text):
        signs = np.flatnonzero(np.isin(ids, list(encoder.special.values())))
        counts = counts.copy()
        counts[signs[-ending[0].count(SIGN)] :] = 0
    return counts


def holds_chats(documents: Documents) -> bool:
    """Whether some rows of instructions are conversations, which want a chat template."""
    return any(
        text.startswith('{"messages"') for batch in documents.batches(BATCH_BYTES) for text in documents.texts(*batch)
    )
