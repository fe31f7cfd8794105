"""Documents -> token ids on the disk, encoded once per tokenizer, with the bytes that each token stands for.

A document of plain text is its tokens and one end-of-text token. Of instructions only the answers are learnt: every
other token is context, which has no label.
"""

import hashlib
import json
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from domaintune.caching import cached
from domaintune.config import UsageError
from domaintune.data.documents import Documents
from domaintune.progress import progress

FORMAT = 1  # raise when the same documents and tokenizer would give other tokens
BATCH_BYTES = 2_000_000  # handed to the tokenizer at once, which works on the texts in parallel
CONTEXT = -1  # in place of a token's bytes: it has no label

# For instructions where the tokenizer has no chat template of its own; saved with the model, so that
# `apply_chat_template` writes the same. `User: ...`, `Assistant: ...`, each turn closed by a blank line.
PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].capitalize() + ': ' + message['content'] }}"
    "{{ eos_token if message['role'] == 'assistant' else '\n\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}"
)


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
        return np.fromfile(self.folder / f"{name}.bin", dtype=np.int32, count=end - first, offset=first * 4)


class Segment(NamedTuple):
    """A part of a document that is encoded by itself.

    Attributes:
        learnt: whether its tokens have labels.
        special: whether the names of special tokens in it mean these tokens; else they are plain text.
    """

    text: str
    learnt: bool = True
    special: bool = False


def tokenize(documents: Documents, tokenizer: Any, format: str, cache: str) -> Tokens:
    """Encodes the documents with a fast tokenizer of transformers; from the cache where that was done before.

    Args:
        format: `text` or `instructions`. Special tokens that a plain text names stay plain text.

    Raises:
        UsageError: instructions that the tokenizer's chat template refuses; names the row.
    """
    template = tokenizer.chat_template if format == "instructions" else None
    encoder = Encoder(tokenizer)

    def encode(texts: list[str], first: int) -> tuple[Ids, Ids, Lengths]:
        if format == "instructions":
            return _conversations(texts, first, documents, tokenizer, encoder)
        return _closed(*encoder.encode(texts), tokenizer.eos_token_id)

    return store_tokens(documents, tokenizer, [format, template], encode, cache)


def store_tokens(documents: Documents, tokenizer: Any, kind: list[Any], encode: "Encode", cache: str) -> Tokens:
    """The tokens that `encode` makes of the documents; from the cache where they are there.

    Args:
        kind: what besides documents and tokenizer decides about them.
        encode: (texts, number of the first) -> ids and counts, end to end, and each text's number of tokens.
    """
    format, *rest = kind
    key = {
        "format": FORMAT,
        "documents": documents.folder.name,
        "kind": format,
        "tokenizer": tokenizer_sha256(tokenizer, *rest),
    }
    return Tokens(cached(cache, "tokens", key, lambda folder: _write(folder, documents, encode)))


def tokenizer_sha256(tokenizer: Any, *besides: Any) -> str:
    """Of everything that decides which tokens a text becomes: the tokenizer, and what there is besides."""
    special = {"eos": tokenizer.eos_token_id, **tokenizer.special_tokens_map}
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    backend |= {"truncation": None, "padding": None}  # they change with every call, and are not used here
    whole = json.dumps([backend, special, *besides], sort_keys=True, default=str)
    return hashlib.sha256(whole.encode()).hexdigest()


def _write(folder: Path, documents: Documents, encode: "Encode") -> None:
    starts, has_context = array("q", [0]), False
    with (
        (folder / "ids.bin").open("wb") as ids_file,
        (folder / "byte_counts.bin").open("wb") as counts_file,
        progress("tokenizing", int(documents.starts[-1]), "bytes") as advance,
    ):
        for first, end in documents.batches(BATCH_BYTES):
            ids, counts, lengths = encode(list(documents.texts(first, end)), first)
            has_context |= bool((counts == CONTEXT).any())
            ids.tofile(ids_file)
            counts.tofile(counts_file)
            starts.extend((np.cumsum(lengths) + starts[-1]).tolist())
            advance(int(documents.starts[end] - documents.starts[first]))
    np.save(folder / "starts.npy", np.frombuffer(starts, dtype=np.int64))
    if has_context:
        (folder / "has_context").touch()


Ids = npt.NDArray[np.int32]
Lengths = npt.NDArray[np.int64]
Encode = Callable[[list[str], int], tuple[Ids, Ids, Lengths]]


def _closed(ids: Ids, counts: Ids, lengths: Lengths, eos: int) -> tuple[Ids, Ids, Lengths]:
    """An end-of-text token, which stands for no bytes, after each document."""
    ends = np.cumsum(lengths)
    return np.insert(ids, ends, eos), np.insert(counts, ends, 0), lengths + 1


class Encoder:
    """Texts -> ids and byte counts; the library's threads work on the texts of a batch in parallel.

    A byte-level tokenizer's tokens stand for as many bytes as their names have characters, which spares the offsets.
    That is checked for every text: where the bytes don't add up (a normalizer changed it), offsets are taken.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.backend = tokenizer.backend_tokenizer
        self.backend.no_truncation()
        self.backend.no_padding()
        self.byte_level = '"ByteLevel"' in json.dumps(json.loads(self.backend.to_str())["pre_tokenizer"])
        names = self.backend.get_vocab(with_added_tokens=True)
        added = {number: token.content for number, token in self.backend.get_added_tokens_decoder().items()}
        self.bytes_of = np.zeros(max(names.values()) + 1, dtype=np.int32)
        for name, number in names.items():
            self.bytes_of[number] = len(added[number].encode()) if number in added else len(name)

    def encode(self, texts: list[str], special: bool = False) -> tuple[Ids, Ids, Lengths]:
        """All texts' token ids and byte counts, end to end, and each text's number of tokens."""
        self.backend.encode_special_tokens = not special
        encode = self.backend.encode_batch_fast if self.byte_level else self.backend.encode_batch
        encoded = encode(texts, add_special_tokens=False)
        lists = [one.ids for one in encoded]
        lengths = np.array([len(one) for one in lists], dtype=np.int64)
        ids = np.fromiter(chain.from_iterable(lists), dtype=np.int32, count=int(lengths.sum()))
        ends = np.cumsum(lengths)
        counts = self.bytes_of[ids]
        if self.byte_level:
            summed = np.diff(np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])[np.concatenate([[0], ends])])
            sizes = [len(text) if text.isascii() else len(text.encode()) for text in texts]
            wrong = np.flatnonzero(summed != sizes).tolist()
            encoded = self.backend.encode_batch([texts[number] for number in wrong], add_special_tokens=False)
        else:
            wrong = list(range(len(texts)))
        for number, one in zip(wrong, encoded, strict=True):
            stops = np.array(one.offsets, dtype=np.int64).reshape(-1, 2)[:, 1]
            counts[ends[number] - lengths[number] : ends[number]] = _byte_counts(texts[number], stops)
        return ids, counts, lengths


def _byte_counts(text: str, ends: npt.NDArray[np.int64]) -> Ids:
    """The bytes that each token adds to the text so far.

    Where several tokens share a character the first gets its bytes. What the tokenizer dropped at the end belongs to
    the last token, so that the sum is the text's bytes.
    """
    if text.isascii():
        up_to = np.arange(len(text) + 1)
    else:
        up_to = np.concatenate([[0], np.cumsum([len(char.encode()) for char in text])])
    bytes_so_far = up_to[np.maximum.accumulate(ends)]
    if len(ends):
        bytes_so_far[-1] = up_to[-1]
    return np.diff(bytes_so_far, prepend=0).astype(np.int32)


# Instructions.


def _conversations(
    texts: list[str], first: int, documents: Documents, tokenizer: Any, encoder: Encoder
) -> tuple[Ids, Ids, Lengths]:
    """Ids, byte counts with CONTEXT outside the answers, and lengths of rows of instructions."""
    rows = []
    for number, text in enumerate(texts, first):
        try:
            rows.append(segments(json.loads(text), tokenizer))
        except ValueError as error:
            raise UsageError(f"{documents.place(number)}: {error}") from error
    every = [segment for row in rows for segment in row]
    encoded: list[tuple[Ids, Ids]] = [(np.empty(0, np.int32), np.empty(0, np.int32))] * len(every)
    for special in (False, True):
        chosen = [number for number, segment in enumerate(every) if segment.special == special]
        ids, counts, lengths = encoder.encode([every[number].text for number in chosen], special)
        cuts = np.cumsum(lengths)[:-1]
        for number, *one in zip(chosen, np.split(ids, cuts), np.split(counts, cuts), strict=bool(chosen)):
            encoded[number] = (one[0], one[1] if every[number].learnt else np.full_like(one[1], CONTEXT))
    joined = iter(encoded)
    per_row = [_whole(row, [next(joined) for _ in row], tokenizer.eos_token_id) for row in rows]
    ids, counts = (np.concatenate([row[part] for row in per_row]) for part in (0, 1))
    return ids, counts, np.array([len(row[0]) for row in per_row], dtype=np.int64)


def _whole(row: list[Segment], encoded: list[tuple[Ids, Ids]], eos: int) -> tuple[Ids, Ids]:
    """The segments of a row joined, and closed by an end-of-text token unless the template has put one already."""
    ids, counts = (np.concatenate([one[part] for one in encoded]) for part in (0, 1))
    if eos in encoded[-1][0]:
        return ids, counts
    return np.append(ids, np.int32(eos)), np.append(counts, np.int32(0 if row[-1].learnt else CONTEXT))


def holds_chats(documents: Documents) -> bool:
    """Whether some rows of instructions are conversations, which want a chat template."""
    return any(
        text.startswith('{"messages"') for batch in documents.batches(BATCH_BYTES) for text in documents.texts(*batch)
    )


def segments(row: dict[str, Any], tokenizer: Any) -> list[Segment]:
    """What of a row is given and what is learnt.

    A prompt and its completion are joined as they are, since a person who wants a space or a line end between them
    has put it there. Messages are written by the chat template; learnt is what it adds for each answer of the
    assistant, the sign of its end included; turns after the last answer are left out. The parts are encoded apart, as
    a prompt is when the model is used.

    Raises:
        ValueError: the template can't write this conversation, or doesn't write it piece by piece.
    """
    if "prompt" in row:
        return [Segment(row["prompt"], learnt=False), Segment(row["completion"])]
    messages, written, found = row["messages"], "", []
    for number, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        asked = _render(tokenizer, messages[:number], True)
        answered = _render(tokenizer, messages[: number + 1], False)
        if not (asked.startswith(written) and answered.startswith(asked)):
            raise ValueError("the chat template rewrites earlier turns, so its answers can't be told apart")
        found += [Segment(asked[len(written) :], False, True), Segment(answered[len(asked) :], True, True)]
        written = answered
    return found


def _render(tokenizer: Any, messages: list[dict[str, str]], asks: bool) -> str:
    from jinja2.exceptions import TemplateError

    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=asks))
    except TemplateError as error:
        raise ValueError(f"the chat template refuses it: {error}") from error
