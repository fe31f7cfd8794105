"""Token arrays -> windows of at most `block_size` tokens. Padded and (later) packed batches use the same windows."""

import numpy as np
import numpy.typing as npt


def cut_windows(starts: npt.NDArray[np.int64], block_size: int) -> npt.NDArray[np.int64]:
    """Cuts each document into windows that overlap by one token.

    The first token of a window is context and is not predicted, so every token of a document but its first is
    predicted exactly once: a document of L tokens gives L - 1 predictions, whatever the block size.

    Args:
        starts: (D + 1,) where documents begin in the token array; the last entry is its length.
        block_size: the most tokens in a window, at least 2.

    Returns:
        (W, 2) first token and end of each window, in the order of the documents.
    """
    lengths = np.diff(starts)
    # A window of one token would predict nothing; ceil((L - 1) / (block_size - 1)) windows predict them all.
    counts = -(-(lengths - 1) // (block_size - 1))
    number_in_document = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    first = np.repeat(starts[:-1], counts) + number_in_document * (block_size - 1)
    end = np.minimum(first + block_size, np.repeat(starts[1:], counts))
    return np.stack([first, end], axis=1)
