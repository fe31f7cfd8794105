"""Windows -> batches: which of them stand in a row, in which order, and as tensors.

The order is a pure function of lengths, seed and epoch.
"""

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch.utils.data import Sampler

POOL = 64  # batches whose windows are sorted by length together: little padding, and still a random order

CHUNK = 1 << 16  # windows that are packed at once

Rows = list[list[int]]  # of a batch: each row is the windows in it, by their index


@dataclass(frozen=True)
class Batches:
    """The batches of an epoch, as arrays: lists of a large corpus would take more memory than its tokens.

    Attributes:
        windows: (W,) all windows, row after row.
        rows: (R + 1,) where rows begin in `windows`.
        order: (R,) rows, batch after batch.
        starts: (B + 1,) where batches begin in `order`.
    """

    windows: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    order: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, number: int) -> Rows:
        chosen = self.order[self.starts[number] : self.starts[number + 1]]
        return [self.windows[self.rows[row] : self.rows[row + 1]].tolist() for row in chosen]


def padded_batches(
    lengths: npt.NDArray[np.int64], batch_size: int, seed: int, epoch: int, pool_batches: int = POOL
) -> Batches:
    """One window a row. Shuffles, sorts by length inside pools of batches, cuts into batches and shuffles these.

    Args:
        pool_batches: how many batches are sorted together; 1 draws each batch from all lengths.

    Returns:
        every index exactly once; all batches have `batch_size` rows but one, which may have fewer.
    """
    random = np.random.default_rng([seed, epoch])
    windows = random.permutation(len(lengths))
    pool = pool_batches * batch_size
    for first in range(0, len(windows), pool):
        part = windows[first : first + pool]
        windows[first : first + pool] = part[np.argsort(lengths[part], kind="stable")]
    firsts = random.permutation(np.arange(0, len(windows), batch_size))
    sizes = np.minimum(batch_size, len(windows) - firsts)
    order = np.repeat(firsts - np.cumsum(sizes) + sizes, sizes) + np.arange(len(windows))
    return Batches(windows, np.arange(len(windows) + 1), order, np.concatenate([[0], np.cumsum(sizes)]))


def packed_batches(lengths: npt.NDArray[np.int64], batch_size: int, seed: int, epoch: int, block_size: int) -> Batches:
    """As many windows a row as fit into a block. Every index exactly once, blocks in random order."""
    random = np.random.default_rng([seed, epoch])
    block_of = best_fit(lengths, block_size, random)
    rows = np.concatenate([[0], np.cumsum(np.bincount(block_of))])
    order = random.permutation(len(rows) - 1)
    starts = np.append(np.arange(0, len(order), batch_size), len(order))
    return Batches(np.argsort(block_of, kind="stable"), rows, order, starts)


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


class EpochSampler(Sampler[Rows]):
    """Batches of one rank. Each rank has the same number of batches; those that are missing at the end are empty.

    `skip` is the number of batches already consumed of the epoch in `epoch`: resuming sets it before `iter()`. The
    length stays that of the whole epoch, since Lightning adds the batches done to the ones it fetches.

    Args:
        batches: epoch -> its batches over all ranks; every epoch has as many as any other.
        reshuffle: False takes epoch 0 every time.
    """

    def __init__(
        self, batches: Callable[[int], Batches], reshuffle: bool = True, rank: int = 0, world_size: int = 1
    ) -> None:
        self.batches, self.reshuffle = batches, reshuffle
        self.rank, self.world_size = rank, world_size
        self.epoch = self.skip = 0
        self.sampler = self  # Lightning looks for set_epoch at `batch_sampler.sampler`

    def set_epoch(self, epoch: int) -> None:
        if self.reshuffle:
            self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.batches(self.epoch)) // self.world_size)

    def __iter__(self) -> Iterator[Rows]:
        batches = self.batches(self.epoch)
        skip, self.skip = self.skip, 0
        for number in range(skip, -(-len(batches) // self.world_size)):
            place = number * self.world_size + self.rank
            yield batches[place] if place < len(batches) else []


class EpochIndexSampler(EpochSampler):
    """Says of each window also in which epoch it is asked for, for what is drawn anew in every epoch.

    Handed down with the index, since workers fetch ahead and know of no epoch.
    """

    def __iter__(self) -> Iterator[Any]:
        epoch = self.epoch
        for rows in super().__iter__():
            yield [[(epoch, window) for window in row] for row in rows]


# Tensors.

IGNORED = -100  # the label that no loss counts: the field's convention, from PyTorch's cross_entropy
ROUNDED_TO = 256  # predictions of a batch


class Batch(TypedDict):
    """What a task gets.

    Attributes:
        input_ids, labels: (B, T). A label stands under its own token, as transformers has it.
        bytes: how many bytes of text the predicted tokens stand for.
        tokens: how many tokens have a label.
        states, targets: (M,) places in the flattened (B * T,) batch whose hidden states predict a labelled token, and
            its label. Found here, since finding them on a GPU would make the program wait for it. M is rounded up with
            IGNORED targets: tensors of ever new sizes would leave holes in memory.
        position_ids: (B, T), packed only: they start anew with every window.
        cu_seqlens: (S + 1,) int32, packed only: where windows begin in the flattened (B * T,) batch. Padding at the
            end of a row counts as a window of its own.
    """

    input_ids: torch.Tensor
    labels: torch.Tensor
    bytes: int
    tokens: int
    states: torch.Tensor
    targets: torch.Tensor
    position_ids: NotRequired[torch.Tensor]
    cu_seqlens: NotRequired[torch.Tensor]


class Window(TypedDict):
    """(T,) token ids, (T,) labels (the first is always IGNORED), and the bytes that the labelled ones stand for."""

    input_ids: torch.Tensor
    labels: torch.Tensor
    bytes: int


def pad(windows: list[Window], pad_token_id: int) -> Batch:
    """One window a row, padded on the right to the longest.

    What is padding is known by length, never by `== pad_token_id`: for
    GPT-2 that is the end-of-text token, which is trained. No attention mask: under a causal mask no token sees the
    padding to its right.
    """
    longest = max(len(window["input_ids"]) for window in windows)
    input_ids, labels, _ = _fill([[window] for window in windows], longest, pad_token_id)
    return {
        "input_ids": input_ids,
        "labels": labels,
        "bytes": sum(window["bytes"] for window in windows),
        **_targets(labels),
    }


def pack(rows: list[list[Window]], block_size: int, pad_token_id: int) -> Batch:
    """Windows end to end, each row padded to `block_size`: a batch has the same shape every time."""
    input_ids, labels, starts = _fill(rows, block_size, pad_token_id)
    cu_seqlens = torch.tensor([*starts, input_ids.numel()], dtype=torch.int32)
    lengths = cu_seqlens.diff().long()
    position = torch.arange(input_ids.numel()) - cu_seqlens[:-1].long().repeat_interleave(lengths)
    return {
        "input_ids": input_ids,
        "labels": labels,
        "bytes": sum(window["bytes"] for row in rows for window in row),
        **_targets(labels),
        "position_ids": position.view_as(input_ids),
        "cu_seqlens": cu_seqlens,
    }


class _Targets(TypedDict):
    tokens: int
    states: torch.Tensor
    targets: torch.Tensor


def _targets(labels: torch.Tensor) -> _Targets:
    """What of a batch is predicted, of (B, T) labels; the first of a row is never labelled."""
    labels = labels.flatten()
    places = (labels != IGNORED).nonzero()[:, 0]
    rest = min(-len(places) % ROUNDED_TO, len(labels) - len(places))
    return {
        "tokens": len(places),
        "states": F.pad(places - 1, (0, rest)),
        "targets": F.pad(labels[places], (0, rest), value=IGNORED),
    }


def _fill(rows: list[list[Window]], width: int, pad_token_id: int) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """(B, width) ids and labels, and where in the flattened batch windows and paddings begin."""
    input_ids = torch.full((len(rows), width), pad_token_id)
    labels = torch.full((len(rows), width), IGNORED)
    starts = []
    for number, row in enumerate(rows):
        place = 0
        for window in row:
            starts.append(number * width + place)
            end = place + len(window["input_ids"])
            input_ids[number, place:end] = window["input_ids"]
            labels[number, place:end] = window["labels"]
            place = end
        if place < width:
            starts.append(number * width + place)
    return input_ids, labels, starts


def collate(rows: list[list[Window]], block_size: int | None, pad_token_id: int) -> Batch:
    """A batch of rows, packed into blocks, or padded where `block_size` is None.

    A rank that ran out of rows gets one that predicts nothing, so that no other waits for it.
    """
    nothing: Window = {"input_ids": torch.tensor([pad_token_id]), "labels": torch.tensor([IGNORED]), "bytes": 0}
    rows = rows or [[nothing]]
    if block_size is not None:
        return pack(rows, block_size, pad_token_id)
    return pad([window for row in rows for window in row], pad_token_id)
