"""Token arrays -> windows of at most `block_size` tokens -> blocks. Padded and packed batches use the same windows."""

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


def best_fit(lengths: npt.NDArray[np.int64], block_size: int, random: np.random.Generator) -> list[list[int]]:
    """Packs windows into blocks, the longest first, each into the fullest block that still has room for it.

    Best-fit decreasing: nothing is cut or dropped, and with the usual spread of lengths hardly a token of a block is
    left empty (Ding et al., "Fewer Truncations Improve Language Modeling", 2024). Windows of one length are taken in
    random order, so that each epoch brings others together; how many blocks there are depends on the lengths alone.

    Args:
        lengths: (W,) tokens of each window, none above `block_size`.
        block_size: tokens of a block.
        random: decides among windows of equal length.

    Returns:
        the windows of each block, by their index.
    """
    order = random.permutation(len(lengths))
    order = order[np.argsort(-lengths[order], kind="stable")]
    blocks: list[list[int]] = []
    with_room: list[list[int]] = [[] for _ in range(block_size + 1)]  # room left -> blocks that have it
    rooms = 0  # bit r is set where with_room[r] is not empty: the tightest fit is its lowest bit from `length` on
    for window, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            block = with_room[room].pop()
            if not with_room[room]:
                rooms ^= 1 << room
        else:
            room, block = block_size, len(blocks)
            blocks.append([])
        blocks[block].append(window)
        with_room[room - length].append(block)
        rooms |= 1 << (room - length)
    return blocks
