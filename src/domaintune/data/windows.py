"""The windows of one side, as a dataset that reads them from the disk."""

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from domaintune.data.collating import IGNORED, Window
from domaintune.data.packing import cut_windows
from domaintune.data.tokenizing import CONTEXT, Tokens

COUNTED = 4096  # stretches that are looked through at once for labels


class WindowDataset(Dataset[list[Window]]):
    """The windows of some documents; an item is a row of them.

    Windows without any label are left out: a pass over them would teach nothing.

    Args:
        tokens: of all documents.
        documents: (D,) the numbers of this side's.
        block_size: the most tokens in a window.
    """

    def __init__(self, tokens: Tokens, documents: npt.NDArray[np.int64], block_size: int) -> None:
        self.tokens, self.documents = tokens, documents
        self.firsts, self.ends = tokens.starts[documents], tokens.starts[documents + 1]
        self.windows = self._cut(block_size)
        self.labels = self.lengths - 1
        self.context_tokens = 0  # not counting the first of each document
        if tokens.has_context:
            self.labels = self._learnt(self.windows[:, 0] + 1, self.windows[:, 1])
            self.windows, self.labels = self.windows[self.labels > 0], self.labels[self.labels > 0]
            after_first = self.ends - self.firsts - 1
            self.context_tokens = int((after_first - self._learnt(self.firsts + 1, self.ends)).sum())

    def _cut(self, block_size: int) -> npt.NDArray[np.int64]:
        return cut_windows(self.firsts, self.ends, block_size)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(W,) tokens of each window."""
        return self.windows[:, 1] - self.windows[:, 0]

    @property
    def predicted_tokens(self) -> int:
        """Tokens that a full pass predicts."""
        return int(self.labels.sum())

    def _learnt(self, firsts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """How many tokens of each stretch have a label; stretches in the order of the disk."""
        counts = [np.empty(0, dtype=np.int64)]
        for start in range(0, len(firsts), COUNTED):
            first, end = firsts[start : start + COUNTED], ends[start : start + COUNTED]
            learnt = self.tokens.byte_counts(int(first[0]), int(end[-1])) != CONTEXT
            up_to = np.concatenate([[0], np.cumsum(learnt)])
            counts.append(up_to[end - first[0]] - up_to[first - first[0]])
        return np.concatenate(counts)

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, row: list[int]) -> list[Window]:
        return [self.window(index) for index in row]

    def window(self, index: int) -> Window:
        ids, counts = self._read(*self.windows[index].tolist())
        input_ids = torch.from_numpy(ids.astype(np.int64))
        labels = input_ids.clone()
        labels[0] = IGNORED
        labels[torch.from_numpy(counts) == CONTEXT] = IGNORED
        return {"input_ids": input_ids, "labels": labels, "bytes": int(counts[1:].clip(0).sum(dtype=np.int64))}

    def _read(self, first: int, end: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        return self.tokens.ids(first, end), self.tokens.byte_counts(first, end)


class StreamDataset(WindowDataset):
    """The documents end to end, cut without regard to where one ends: the classic way, which mixes documents."""

    def _cut(self, block_size: int) -> npt.NDArray[np.int64]:
        if self.tokens.has_context:
            raise ValueError("documents with context can't be cut anywhere")
        self.stream = np.concatenate([[0], np.cumsum(self.ends - self.firsts)])
        return cut_windows(self.stream[:1], self.stream[-1:], block_size)[: None if len(self.documents) else 0]

    def _read(self, first: int, end: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Places in the stream, which lie in one document of the disk or in several."""
        parts = []
        holding = np.searchsorted(self.stream, first, side="right") - 1, np.searchsorted(self.stream, end)
        for document in range(*holding):
            begins = self.stream[document]
            offset = self.firsts[document] - begins
            start, stop = max(first, begins) + offset, min(end, self.stream[document + 1]) + offset
            parts.append(super()._read(int(start), int(stop)))
        return np.concatenate([ids for ids, _ in parts]), np.concatenate([counts for _, counts in parts])
