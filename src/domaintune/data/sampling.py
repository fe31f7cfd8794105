"""Which windows form a batch, and in which order: a pure function of lengths, seed and epoch."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

POOL = 64  # batches whose windows are sorted by length together: little padding, and still a random order


def batches_of_similar_length(
    lengths: npt.NDArray[np.int64], batch_size: int, seed: int, epoch: int
) -> list[npt.NDArray[np.int64]]:
    """Shuffles, sorts by length inside pools of 64 batches, cuts into batches and shuffles these.

    Returns:
        every index exactly once; all batches have `batch_size` indices but one, which may have fewer.
    """
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(len(lengths))
    pool = POOL * batch_size
    pools = [order[i : i + pool] for i in range(0, len(order), pool)]
    order = np.concatenate([order[:0], *(part[np.argsort(lengths[part], kind="stable")] for part in pools)])
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    return [batches[i] for i in random.permutation(len(batches))]


class LengthGroupedSampler(Sampler[list[int]]):
    """Batches of one rank. Each rank has the same number of batches; those that are missing at the end are empty.

    `skip` is the number of batches already consumed of the epoch in `epoch`: resuming sets it before `iter()`. The
    length stays that of the whole epoch, since Lightning adds the batches done to the ones it fetches.
    """

    def __init__(
        self,
        lengths: npt.NDArray[np.int64],
        batch_size: int,
        seed: int,
        reshuffle: bool = True,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.lengths, self.batch_size, self.seed, self.reshuffle = lengths, batch_size, seed, reshuffle
        self.rank, self.world_size = rank, world_size
        self.epoch = self.skip = 0
        self.sampler = self  # Lightning looks for set_epoch at `batch_sampler.sampler`

    def set_epoch(self, epoch: int) -> None:
        if self.reshuffle:
            self.epoch = epoch

    def __len__(self) -> int:
        batches = -(-len(self.lengths) // self.batch_size)
        return -(-batches // self.world_size)

    def __iter__(self) -> Iterator[list[int]]:
        batches = batches_of_similar_length(self.lengths, self.batch_size, self.seed, self.epoch)
        skip, self.skip = self.skip, 0
        for number in range(skip, len(self)):
            place = number * self.world_size + self.rank
            yield batches[place].tolist() if place < len(batches) else []
