import numpy as np
import pytest

from domaintune.data import packing
from domaintune.data.packing import best_fit, cut_windows


def starts_of(lengths: list[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def windows_of(starts: np.ndarray, block_size: int) -> np.ndarray:
    return cut_windows(starts[:-1], starts[1:], block_size)


def random_starts(block_size: int) -> np.ndarray:
    return starts_of(np.random.default_rng(block_size).integers(1, 60, size=200).tolist())


@pytest.mark.parametrize("block_size", range(2, 18))
def test_every_token_but_each_documents_first_is_predicted_exactly_once(block_size: int) -> None:
    starts = random_starts(block_size)
    predicted = [token for first, end in windows_of(starts, block_size) for token in range(first + 1, end)]
    assert predicted == sorted(set(range(starts[-1])) - set(starts.tolist()))


@pytest.mark.parametrize("block_size", range(2, 18))
def test_windows_are_never_longer_than_a_block_and_always_predict_something(block_size: int) -> None:
    windows = windows_of(random_starts(block_size), block_size)
    lengths = windows[:, 1] - windows[:, 0]
    assert lengths.max() <= block_size
    assert lengths.min() >= 2


@pytest.mark.parametrize("block_size", range(2, 18))
def test_windows_never_cross_documents(block_size: int) -> None:
    starts = random_starts(block_size)
    first, end = windows_of(starts, block_size).T
    document = np.searchsorted(starts, first, side="right")
    assert (end <= starts[document]).all()


@pytest.mark.parametrize(
    ("length", "windows"),
    [
        (2, [[0, 2]]),
        (7, [[0, 7]]),
        (8, [[0, 8]]),
        (9, [[0, 8], [7, 9]]),
        (15, [[0, 8], [7, 15]]),
        (16, [[0, 8], [7, 15], [14, 16]]),
    ],
)
def test_lengths_around_a_block_of_eight(length: int, windows: list[list[int]]) -> None:
    assert windows_of(starts_of([length]), 8).tolist() == windows


def test_a_document_of_one_token_gives_no_window() -> None:
    assert windows_of(starts_of([1, 3, 1]), 8).tolist() == [[1, 4]]


def test_no_documents_give_no_windows() -> None:
    assert windows_of(starts_of([]), 8).shape == (0, 2)


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
    monkeypatch.setattr(packing, "CHUNK", chunk)
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
