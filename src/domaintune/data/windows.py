"""Documents -> windows of at most `block_size` tokens, as a dataset that reads them from the disk."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from domaintune.data.batching import IGNORED, Window
from domaintune.data.encoder import CONTEXT
from domaintune.data.tokenizing import Tokens

COUNTED = 4096  # stretches that are looked through at once for labels


def cut_windows(firsts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64], block_size: int) -> npt.NDArray[np.int64]:
    """Cuts each document into windows that overlap by one token.

    The first token of a window is context and is not predicted, so every token of a document but its first is
    predicted exactly once: a document of L tokens gives L - 1 predictions, whatever the block size.

    Args:
        firsts, ends: (D,) document d is tokens firsts[d] to ends[d].
        block_size: the most tokens in a window, at least 2.

    Returns:
        (W, 2) first token and end of each window, in the order of the documents.
    """
    # A window of one token would predict nothing; ceil((L - 1) / (block_size - 1)) windows predict them all.
    counts = -(-(ends - firsts - 1) // (block_size - 1))
    number_in_document = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    first = np.repeat(firsts, counts) + number_in_document * (block_size - 1)
    return np.stack([first, np.minimum(first + block_size, np.repeat(ends, counts))], axis=1)


class WindowDataset(Dataset[list[Window]]):
    """The windows of some documents; an item is a row of them.

    Of plain text every token but a document's first is predicted once. Of instructions only answers are: windows
    without a label are left out, and a row longer than a block is cut so that an answer keeps its prompt, or at least
    half a block of what stands before it.

    Args:
        tokens: of all documents.
        documents: (D,) the numbers of this side's.
        block_size: the most tokens in a window.

    Attributes:
        documents: (S,) the document of each sequence of tokens; windows of two don't see each other.
        windows: (W, 2) first token and end of each.
        predict_from: (W,) the first token that a window predicts; those before it are context.
        labels: (W,) how many it predicts.
    """

    unit = "tokens"  # what is predicted

    def __init__(self, tokens: Tokens, documents: npt.NDArray[np.int64], block_size: int) -> None:
        self.tokens = tokens
        self.documents, self.firsts, self.ends = tokens.sequences(documents)
        if tokens.has_context:
            windows = self._around_answers(block_size)
            self.windows, self.predict_from = windows[:, [0, 2]], windows[:, 1]
            self.labels = self._learnt(self.predict_from, self.windows[:, 1])
            kept = self.labels > 0
            self.windows, self.labels = self.windows[kept], self.labels[kept]
            self.predict_from = self.predict_from[kept]
        else:
            self.windows = self._cut(block_size)
            self.predict_from, self.labels = self.windows[:, 0] + 1, self.lengths - 1

    def _cut(self, block_size: int) -> npt.NDArray[np.int64]:
        return cut_windows(self.firsts, self.ends, block_size)

    def _around_answers(self, block_size: int) -> npt.NDArray[np.int64]:
        """(W, 3) first token, first predicted token and end of each window, in the order of the disk."""
        windows = [np.empty((0, 3), dtype=np.int64)]
        for first, end in zip(self.firsts.tolist(), self.ends.tolist(), strict=True):
            if end - first <= block_size:
                windows.append(np.array([[first, first + 1, end]]))
                continue
            answers = np.flatnonzero(self.tokens.byte_counts(first + 1, end) != CONTEXT) + first + 1
            place = 0
            while place < len(answers):
                begins = int(answers[place])
                stop = min(end, begins + max(1, block_size // 2))
                windows.append(np.array([[max(first, stop - block_size), begins, stop]]))
                place = int(np.searchsorted(answers, stop))
        return np.concatenate(windows)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(W,) tokens of each window."""
        return self.windows[:, 1] - self.windows[:, 0]

    @cached_property
    def text_bytes(self) -> npt.NDArray[np.int64]:
        """(W,) bytes of text that the tokens which each window predicts stand for."""
        return self._summed(self.predict_from, self.windows[:, 1], lambda counts: counts.clip(0))

    @property
    def predicted_tokens(self) -> int:
        """Tokens that a full pass predicts."""
        return int(self.labels.sum())

    @property
    def trained_tokens(self) -> int:
        """Tokens of an epoch as a run counts them: those that are predicted."""
        return self.predicted_tokens

    def count_labels(self) -> int:
        """The tokens that should be predicted, counted by documents."""
        if self.tokens.has_context:
            return int(self._learnt(self.firsts + 1, self.ends).sum())
        return int((self.ends - self.firsts - 1).sum())

    @property
    def covered_tokens(self) -> int:
        """Tokens that stand in a window, each counted once though windows overlap."""
        firsts, ends = self.windows.T
        return int((ends - np.maximum(firsts, np.concatenate([[0], ends[:-1]])[: len(ends)])).sum())

    def _learnt(self, firsts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """How many tokens of each stretch have a label; stretches in the order of the disk."""
        return self._summed(firsts, ends, lambda counts: counts != CONTEXT)

    def _summed(
        self,
        firsts: npt.NDArray[np.int64],
        ends: npt.NDArray[np.int64],
        of_tokens: Callable[[npt.NDArray[np.int32]], npt.NDArray[Any]],
    ) -> npt.NDArray[np.int64]:
        """Sums over stretches, in the order of the disk, of what `of_tokens` makes of their tokens' byte counts."""
        sums = [np.empty(0, dtype=np.int64)]
        for start in range(0, len(firsts), COUNTED):
            first, end = firsts[start : start + COUNTED], ends[start : start + COUNTED]
            values = of_tokens(self.tokens.byte_counts(int(first[0]), int(end[-1])))
            up_to = np.concatenate([[0], np.cumsum(values, dtype=np.int64)])
            sums.append(up_to[end - first[0]] - up_to[first - first[0]])
        return np.concatenate(sums)

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, row: list[int]) -> list[Window]:
        return [self.window(index) for index in row]

    def window(self, index: int) -> Window:
        first, end = self.windows[index].tolist()
        ids, counts = self._read(first, end)
        learnt = counts != CONTEXT
        learnt[: self.predict_from[index] - first] = False
        input_ids = ids.astype(np.int64)
        return {
            "input_ids": torch.from_numpy(input_ids),
            "labels": torch.from_numpy(np.where(learnt, input_ids, IGNORED)),
            "bytes": int(counts[learnt].sum(dtype=np.int64)),
        }

    def documents_of(self, index: int) -> list[int]:
        """The numbers of the documents that a window is of: one, unless documents are concatenated."""
        place = np.searchsorted(self.firsts, self.windows[index, 0], side="right") - 1
        return [int(self.documents[place])]

    def _read(self, first: int, end: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        return self.tokens.ids(first, end), self.tokens.byte_counts(first, end)


class StreamDataset(WindowDataset):
    """The documents end to end, cut without regard to where one ends: the classic way, which mixes documents."""

    def _cut(self, block_size: int) -> npt.NDArray[np.int64]:
        self.stream = np.concatenate([[0], np.cumsum(self.ends - self.firsts)])
        return cut_windows(self.stream[:1], self.stream[-1:], block_size)[: None if len(self.documents) else 0]

    def count_labels(self) -> int:
        """All tokens but the very first."""
        return max(0, int(self.stream[-1]) - 1)

    def documents_of(self, index: int) -> list[int]:
        first, end = self.windows[index].tolist()
        return [int(self.documents[place]) for place in self._holding(first, end)]

    def _holding(self, first: int, end: int) -> range:
        """Which of `documents` a stretch of the stream is of."""
        return range(np.searchsorted(self.stream, first, side="right") - 1, np.searchsorted(self.stream, end))

    def _read(self, first: int, end: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Places in the stream, which lie in one document of the disk or in several."""
        parts = []
        for document in self._holding(first, end):
            begins = self.stream[document]
            offset = self.firsts[document] - begins
            start, stop = max(first, begins) + offset, min(end, self.stream[document + 1]) + offset
            parts.append(super()._read(int(start), int(stop)))
        return np.concatenate([ids for ids, _ in parts]), np.concatenate([counts for _, counts in parts])
