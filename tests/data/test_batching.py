from functools import partial
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from domaintune.data import batching
from domaintune.data.batching import (
    IGNORED,
    EpochSampler,
    Rows,
    Window,
    best_fit,
    pack,
    packed_batches,
    pad,
    padded_batches,
)

LENGTHS = np.random.default_rng(0).lognormal(4, 0.8, size=1003).astype(np.int64) + 2


def sampler(
    batch_size: int = 8, seed: int = 0, lengths: np.ndarray = LENGTHS, batching: str = "padded", **settings: Any
) -> EpochSampler:
    packed = partial(packed_batches, lengths, batch_size, seed, block_size=int(LENGTHS.max()))
    return EpochSampler(
        packed if batching == "packed" else partial(padded_batches, lengths, batch_size, seed), **settings
    )


def at_epoch(made: EpochSampler, epoch: int) -> list[Rows]:
    made.set_epoch(epoch)
    return list(made)


def windows_of(batches: list[Rows]) -> list[int]:
    return sorted(window for batch in batches for row in batch for window in row)


def padding(batches: list[Rows]) -> int:
    longest = (LENGTHS[np.concatenate(batch)] for batch in batches)
    return sum(int((lengths.max() - lengths).sum()) for lengths in longest)


BOTH = pytest.mark.parametrize("batching", ["padded", "packed"])


@BOTH
def test_the_order_is_a_function_of_seed_and_epoch(batching: str) -> None:
    one, other = sampler(batching=batching), sampler(batching=batching)
    at_epoch(one, 0)
    np.random.seed(1)
    assert at_epoch(one, 2) == at_epoch(other, 2)
    assert at_epoch(one, 2) != at_epoch(one, 3)
    assert at_epoch(one, 2) != at_epoch(sampler(seed=1, batching=batching), 2)


@pytest.mark.parametrize("batch_size", [1, 3, 8, 2000])
@pytest.mark.parametrize("epoch", [0, 7])
def test_every_window_comes_exactly_once_an_epoch(batch_size: int, epoch: int) -> None:
    batches = at_epoch(sampler(batch_size), epoch)
    assert windows_of(batches) == list(range(len(LENGTHS)))
    assert len(batches) == len(sampler(batch_size)) == -(-len(LENGTHS) // batch_size)


@pytest.mark.parametrize("epoch", [0, 7])
def test_packed_every_window_comes_exactly_once_in_equally_many_batches(epoch: int) -> None:
    made = sampler(batching="packed")
    batches = at_epoch(made, epoch)
    assert windows_of(batches) == list(range(len(LENGTHS)))
    assert len(batches) == len(made)
    assert all(len(batch) == 8 for batch in batches[:-1])


def test_all_batches_but_one_are_full() -> None:
    sizes = sorted(len(batch) for batch in sampler())
    assert sizes[0] == len(LENGTHS) % 8
    assert set(sizes[1:]) == {8}


@BOTH
@pytest.mark.parametrize("skip", [1, 5, 17, 125, 126])
def test_skip_goes_on_exactly_where_an_epoch_was_left(skip: int, batching: str) -> None:
    whole, rest = at_epoch(sampler(batching=batching), 3), sampler(batching=batching)
    rest.set_epoch(3)
    rest.skip = skip
    assert list(rest) == whole[skip:]


def test_skip_holds_for_one_epoch_and_keeps_the_length() -> None:
    made = sampler()
    made.skip = 100
    assert len(made) == 126
    assert len(list(made)) == 26
    assert len(list(made)) == 126


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("windows", [1003, 1001, 5])
@BOTH
def test_ranks_share_every_window_in_equally_many_batches(world_size: int, windows: int, batching: str) -> None:
    settings = {"world_size": world_size, "lengths": LENGTHS[:windows], "batching": batching}
    ranks = [list(sampler(rank=rank, **settings)) for rank in range(world_size)]
    assert len({len(batches) for batches in ranks}) == 1
    assert windows_of([batch for batches in ranks for batch in batches]) == list(range(windows))
    assert all(batch for batches in ranks for batch in batches[:-1])  # only the last one may be empty


def test_ranks_skip_their_own_batches() -> None:
    for rank in range(3):
        whole, rest = sampler(rank=rank, world_size=3), sampler(rank=rank, world_size=3)
        rest.skip = 11
        assert list(rest) == list(whole)[11:]


def test_validation_keeps_one_order() -> None:
    made = sampler(reshuffle=False)
    assert at_epoch(made, 0) == at_epoch(made, 5)


def test_lengths_are_grouped_so_that_little_is_padded() -> None:
    order = np.random.default_rng(0).permutation(len(LENGTHS)).tolist()
    at_random = [[[window] for window in order[i : i + 8]] for i in range(0, len(order), 8)]
    assert padding(list(sampler())) < 0.2 * padding(at_random)


def test_batches_are_not_sorted_by_length() -> None:
    longest = [LENGTHS[np.concatenate(batch)].max() for batch in sampler()]
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.3


@BOTH
def test_no_windows_are_no_batches(batching: str) -> None:
    """A test side may be empty."""
    assert list(sampler(lengths=np.empty(0, dtype=np.int64), batching=batching)) == []


def test_lightning_finds_set_epoch_where_it_looks() -> None:
    made = sampler()
    made.sampler.set_epoch(4)
    assert list(made) == at_epoch(sampler(), 4)


def test_best_fit_takes_every_window_once_and_fills_blocks_to_the_brim() -> None:
    """Log-normal lengths with median 86 and mean 136, as documents have them."""
    random = np.random.default_rng(0)
    lengths = np.clip(random.lognormal(np.log(86), np.sqrt(2 * np.log(136 / 86)), 20_000), 2, 512).astype(np.int64)
    block_of = best_fit(lengths, 512, random)
    filled = np.bincount(block_of, weights=lengths)
    assert filled.min() > 0
    assert filled.max() <= 512
    assert filled.sum() / (512 * len(filled)) >= 0.99


def one_by_one(lengths: list[int], block_size: int) -> list[int]:
    """Best fit as its definition has it: the room left in each block, for windows in the order of `lengths`."""
    rooms: list[int] = []
    for length in lengths:
        fitting = [number for number, room in enumerate(rooms) if room >= length]
        if fitting:
            rooms[min(fitting, key=rooms.__getitem__)] -= length
        else:
            rooms.append(block_size - length)
    return rooms


@pytest.mark.parametrize("chunk", [7, 1 << 16])
def test_best_fit_fills_blocks_as_its_definition_does(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(batching, "CHUNK", chunk)
    lengths = np.random.default_rng(0).integers(2, 30, size=300)
    filled = np.bincount(best_fit(lengths, 32, np.random.default_rng(0)), weights=lengths)
    assert sorted(32 - filled) == sorted(one_by_one(sorted(lengths.tolist(), reverse=True), 32))


def test_best_fit_takes_the_tightest_block() -> None:
    block_of = best_fit(np.array([6, 7, 3, 4]), 10, np.random.default_rng(0))
    assert block_of[0] == block_of[3] != block_of[1] == block_of[2]


def test_best_fit_mixes_windows_of_one_length_and_keeps_the_number_of_blocks() -> None:
    lengths = np.random.default_rng(0).integers(2, 30, size=500)
    one, other = (best_fit(lengths, 32, np.random.default_rng(seed)) for seed in (1, 2))
    assert (one != other).any()
    assert one.max() == other.max()


# Tensors.


def window(*ids: int, text_bytes: int = 0) -> Window:
    return tiny.window(torch.tensor(ids), text_bytes)


def test_rows_are_padded_on_the_right_to_the_longest() -> None:
    batch = pad([window(5, 6), window(7, 8, 9, 10), window(11, 12, 13)], pad_token_id=1)
    assert batch["input_ids"].tolist() == [[5, 6, 1, 1], [7, 8, 9, 10], [11, 12, 13, 1]]


def test_labels_stand_under_their_tokens_but_the_first_and_the_padding() -> None:
    batch = pad([window(5, 6), window(7, 8, 9, 10)], pad_token_id=1)
    assert batch["labels"].tolist() == [[IGNORED, 6, IGNORED, IGNORED], [IGNORED, 8, 9, 10]]


def test_a_real_token_that_equals_the_padding_is_predicted() -> None:
    batch = pad([window(1, 1, 5, 1), window(6, 1)], pad_token_id=1)
    assert batch["labels"].tolist() == [[IGNORED, 1, 5, 1], [IGNORED, 1, IGNORED, IGNORED]]


def test_context_in_the_middle_has_no_label() -> None:
    asked = window(5, 6, 7, 8)
    asked["labels"][1:3] = IGNORED
    for batch in (pad([asked], pad_token_id=1), pack([[asked]], block_size=6, pad_token_id=1)):
        assert batch["labels"][0, :4].tolist() == [IGNORED, IGNORED, IGNORED, 8]


def test_packed_rows_know_where_windows_and_padding_begin() -> None:
    rows = [[window(5, 6), window(7, 8, 9)], [window(1, 2, 3, 4, 5, 6)]]
    batch = pack(rows, block_size=6, pad_token_id=0)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9, 0], [1, 2, 3, 4, 5, 6]]
    assert batch["position_ids"].tolist() == [[0, 1, 0, 1, 2, 0], [0, 1, 2, 3, 4, 5]]
    assert batch["cu_seqlens"].tolist() == [0, 2, 5, 6, 12]
    assert batch["labels"].tolist() == [[IGNORED, 6, IGNORED, 8, 9, IGNORED], [IGNORED, 2, 3, 4, 5, 6]]


def test_the_bytes_of_a_batch_are_those_of_its_windows() -> None:
    assert pad([window(5, 6, text_bytes=3), window(7, text_bytes=4)], pad_token_id=0)["bytes"] == 7


def test_ignored_is_the_label_that_pytorch_ignores() -> None:
    assert torch.nn.CrossEntropyLoss().ignore_index == IGNORED


def test_what_is_predicted_is_found_for_the_loss() -> None:
    draw = torch.Generator().manual_seed(0)
    windows = [tiny.window(torch.randint(90, (length,), generator=draw), length) for length in (200, 3, 150)]
    windows[0]["labels"][50:100] = IGNORED
    for batch in (pad(windows, 0), pack([windows[:2], windows[2:]], 256, 0)):
        count = 149 + 2 + 149
        assert batch["tokens"] == count == int((batch["labels"] != IGNORED).sum())
        states, targets = batch["states"], batch["targets"]
        assert len(states) == len(targets) == 512, "rounded up"
        assert torch.equal(batch["labels"].flatten()[states[:count] + 1], targets[:count])
        assert (targets[count:] == IGNORED).all()
        assert (targets[:count] != IGNORED).all()


def test_no_more_is_predicted_than_a_batch_has_tokens() -> None:
    batch = pad([tiny.window(torch.arange(5), 5), tiny.window(torch.arange(3), 3)], 0)
    assert (batch["tokens"], len(batch["targets"])) == (6, 10)
