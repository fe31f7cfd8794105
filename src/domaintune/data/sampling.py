"""Which windows form a batch, and in which order: a pure function of lengths, seed and epoch."""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

from domaintune.data.packing import best_fit

POOL = 64  # batches whose windows are sorted by length together: little padding, and still a random order

Rows = list[list[int]]  # of a batch: each row is the windows in it, by their index


def padded_batches(lengths: npt.NDArray[np.int64], batch_size: int, seed: int, epoch: int) -> list[Rows]:
    """One window a row. Shuffles, sorts by length inside pools of 64 batches, cuts into batches and shuffles these.

    Returns:
        every index exactly once; all batches have `batch_size` rows but one, which may have fewer.
    """
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(len(lengths))
    pool = POOL * batch_size
    pools = [order[i : i + pool] for i in range(0, len(order), pool)]
    order = np.concatenate([order[:0], *(part[np.argsort(lengths[part], kind="stable")] for part in pools)])
    batches = [order[i : i + batch_size, None].tolist() for i in range(0, len(order), batch_size)]
    return [batches[i] for i in random.permutation(len(batches))]


def packed_batches(
    lengths: npt.NDArray[np.int64], batch_size: int, seed: int, epoch: int, block_size: int
) -> list[Rows]:
    """As many windows a row as fit into a block. Every index exactly once, blocks in random order."""
    random = np.random.default_rng([seed, epoch])
    blocks = best_fit(lengths, block_size, random)
    order = random.permutation(len(blocks)).tolist()
    return [[blocks[i] for i in order[first : first + batch_size]] for first in range(0, len(order), batch_size)]


class EpochSampler(Sampler[Rows]):
    """Batches of one rank. Each rank has the same number of batches; those that are missing at the end are empty.

    `skip` is the number of batches already consumed of the epoch in `epoch`: resuming sets it before `iter()`. The
    length stays that of the whole epoch, since Lightning adds the batches done to the ones it fetches.

    Args:
        batches: epoch -> its batches over all ranks; every epoch has as many as any other.
        reshuffle: False takes epoch 0 every time.
    """

    def __init__(
        self, batches: Callable[[int], list[Rows]], reshuffle: bool = True, rank: int = 0, world_size: int = 1
    ) -> None:
        self.batches, self.reshuffle = batches, reshuffle
        self.rank, self.world_size = rank, world_size
        self.number = len(batches(0))
        self.epoch = self.skip = 0
        self.sampler = self  # Lightning looks for set_epoch at `batch_sampler.sampler`

    def set_epoch(self, epoch: int) -> None:
        if self.reshuffle:
            self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.number // self.world_size)

    def __iter__(self) -> Iterator[Rows]:
        batches = self.batches(self.epoch)
        skip, self.skip = self.skip, 0
        for number in range(skip, len(self)):
            place = number * self.world_size + self.rank
            yield batches[place] if place < len(batches) else []
