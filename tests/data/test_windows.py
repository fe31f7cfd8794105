import numpy as np
import pytest

from domaintune.data.windows import cut_windows


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
