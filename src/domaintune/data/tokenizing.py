"""Documents -> token ids, each document closed by one end-of-text token, with the bytes that each token stands for."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from domaintune.data.reading import Document

BATCH_CHARACTERS = 2_000_000  # handed to the tokenizer at once, which works on the texts in parallel


@dataclass(frozen=True)
class Tokens:
    """The documents of one side, end to end.

    Attributes:
        ids: (N,) token ids; each document's last one is the end-of-text token.
        byte_counts: (N,) UTF-8 bytes of the text that each token stands for; they add up to the document's bytes.
        starts: (D + 1,) document d is ids[starts[d]:starts[d + 1]].
    """

    ids: npt.NDArray[np.int32]
    byte_counts: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int64]


def tokenize(documents: list[Document], tokenizer: Any) -> Tokens:
    """Encodes the documents with a fast tokenizer of transformers; special tokens in the text are plain text."""
    ids: list[npt.NDArray[np.int32]] = []
    counts: list[npt.NDArray[np.int32]] = []
    for texts in _batches(documents):
        encoded = tokenizer(
            texts,
            add_special_tokens=False,
            split_special_tokens=True,
            return_attention_mask=False,
            return_offsets_mapping=True,
            verbose=False,  # longer than the model's context is what windows are for
        )
        for text, tokens, offsets in zip(texts, encoded["input_ids"], encoded["offset_mapping"], strict=True):
            ids.append(np.array([*tokens, tokenizer.eos_token_id], dtype=np.int32))
            counts.append(_byte_counts(text, np.array(offsets, dtype=np.int64).reshape(-1, 2)[:, 1]))
    lengths = np.array([len(document) for document in ids], dtype=np.int64)
    return Tokens(_join(ids), _join(counts), np.concatenate([[0], np.cumsum(lengths)]))


def _batches(documents: list[Document]) -> Iterator[list[str]]:
    """Texts of about BATCH_CHARACTERS: what the tokenizer says of a text is many times its size."""
    texts: list[str] = []
    characters = 0
    for document in documents:
        texts.append(document.text)
        characters += len(document.text)
        if characters >= BATCH_CHARACTERS:
            yield texts
            texts, characters = [], 0
    if texts:
        yield texts


def _join(arrays: list[npt.NDArray[np.int32]]) -> npt.NDArray[np.int32]:
    return np.concatenate(arrays) if arrays else np.empty(0, dtype=np.int32)


def _byte_counts(text: str, ends: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    """The bytes each token adds to the text so far, and 0 for the end-of-text token.

    Where several tokens share a character (a byte-level tokenizer cuts an emoji into bytes) the first gets its bytes.
    What the tokenizer dropped at the end belongs to the last token, so that the sum is the document's bytes.
    """
    if text.isascii():
        up_to = np.arange(len(text) + 1)
    else:
        up_to = np.concatenate([[0], np.cumsum([len(char.encode()) for char in text])])
    bytes_so_far = up_to[np.maximum.accumulate(ends)]
    if len(ends):
        bytes_so_far[-1] = up_to[-1]
    return np.append(np.diff(bytes_so_far, prepend=0), 0).astype(np.int32)
