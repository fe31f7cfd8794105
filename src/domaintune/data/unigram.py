"""What the frequencies of tokens alone would predict: the least that training on a text should beat."""

import numpy as np
import numpy.typing as npt

from domaintune.data.encoder import CONTEXT
from domaintune.data.windows import WindowDataset

CHUNK = 4_000_000  # tokens that are in memory at once


def unigram_loss(train: WindowDataset, val: WindowDataset, vocabulary: int) -> float | None:
    """The mean loss, in nats a token, of a model that knows how often each token is predicted in training.

    Each token counts once more than it occurs (Laplace's rule), so that none is impossible.

    Args:
        vocabulary: the number of tokens that there are.

    Returns:
        None where nothing is validated.
    """
    seen, asked = count_labels_by_token(train, vocabulary), count_labels_by_token(val, vocabulary)
    if not asked.sum():
        return None
    shares = (seen + 1) / (seen.sum() + vocabulary)
    return float(-(asked @ np.log(shares)) / asked.sum())


def count_labels_by_token(dataset: WindowDataset, vocabulary: int) -> npt.NDArray[np.int64]:
    """(vocabulary,) how often each token is predicted in an epoch."""
    counts = np.zeros(vocabulary, dtype=np.int64)
    starts, ends, tokens = dataset.predict_from, dataset.windows[:, 1], dataset.tokens
    for first in range(int(starts.min(initial=0)), int(ends.max(initial=0)), CHUNK):
        end = min(first + CHUNK, int(ends.max()))
        near = (starts < end) & (ends > first)
        changes = np.zeros(end - first + 1, dtype=np.int32)
        np.add.at(changes, starts[near].clip(first) - first, 1)
        np.add.at(changes, ends[near].clip(max=end) - first, -1)
        predicted = np.cumsum(changes[:-1]) > 0
        if tokens.has_context:
            predicted &= tokens.byte_counts(first, end) != CONTEXT
        counts += np.bincount(tokens.ids(first, end)[predicted], minlength=vocabulary)
    return counts
