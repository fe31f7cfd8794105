"""Token arrays -> windows of at most `block_size` tokens -> blocks. Padded and packed batches use the same windows."""

from array import array

import numpy as np
import numpy.typing as npt

CHUNK = 1 << 16  # windows


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


def best_fit(lengths: npt.NDArray[np.int64], block_size: int, random: np.random.Generator) -> npt.NDArray[np.int32]:
    """Packs windows into blocks, the longest first, each into the fullest block that still has room for it.

    Best-fit decreasing: nothing is cut or dropped, and with the usual spread of lengths hardly a token of a block is
    left empty (Ding et al., "Fewer Truncations Improve Language Modeling", 2024). Windows of one length are taken in
    random order, so that each epoch brings others together; how many blocks there are depends on the lengths alone.

    Args:
        lengths: (W,) tokens of each window, none above `block_size`.
        block_size: tokens of a block.
        random: decides among windows of equal length.

    Returns:
        (W,) the block of each window; blocks are numbered from 0.
    """
    order = random.permutation(len(lengths)).astype(np.int32)
    order = order[np.argsort(-lengths[order], kind="stable")]
    block_of = np.empty(len(lengths), dtype=np.int32)
    with_room = [array("i") for _ in range(block_size + 1)]  # room left -> blocks that have it
    rooms = blocks = 0  # bit r of rooms is set where with_room[r] is not empty: the tightest fit is its lowest bit
    for first in range(0, len(order), CHUNK):  # so that few Python integers live at once
        chunk = order[first : first + CHUNK]
        found = []
        for length in lengths[chunk].tolist():
            fitting = rooms >> length
            if fitting:
                room = length + (fitting & -fitting).bit_length() - 1
                block = with_room[room].pop()
                if not with_room[room]:
                    rooms ^= 1 << room
            else:
                room, block, blocks = block_size, blocks, blocks + 1
            found.append(block)
            with_room[room - length].append(block)
            rooms |= 1 << (room - length)
        block_of[chunk] = found
    return block_of
