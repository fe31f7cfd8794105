"""A batch is cut where padding, and what a pass costs, are least."""

import itertools

import numpy as np
import pytest

from domaintune.data.examples import cut_by_length


def cost_of(parts: list[list[int]], lengths: list[int], cost: int) -> int:
    return sum(cost + len(part) * max(lengths[row] for row in part) for part in parts)


@pytest.mark.parametrize("cost", [0, 3, 20, 1000])
@pytest.mark.parametrize("seed", range(5))
def test_no_other_cut_of_sorted_rows_costs_less(cost: int, seed: int) -> None:
    lengths = np.random.default_rng(seed).integers(1, 40, 9).tolist()
    parts = cut_by_length(np.array(lengths)[:, None], cost)
    assert sorted(row for part in parts for row in part) == list(range(9))
    order = sorted(range(9), key=lambda row: lengths[row])
    others = []
    for cuts in itertools.product((False, True), repeat=8):
        bounds = [0, *(place + 1 for place, cut in enumerate(cuts) if cut), 9]
        others.append([order[a:b] for a, b in itertools.pairwise(bounds)])
    assert cost_of(parts, lengths, cost) == min(cost_of(other, lengths, cost) for other in others)


def test_rows_of_one_length_stay_together_and_a_costly_pass_keeps_all() -> None:
    assert cut_by_length(np.array([7, 7, 7])[:, None], 1) == [[0, 1, 2]]
    assert cut_by_length(np.array([9, 1, 5])[:, None], 10_000) == [[1, 2, 0]]
    assert cut_by_length(np.array([9, 1, 9])[:, None], 1) == [[1], [0, 2]]


@pytest.mark.parametrize("seed", range(5))
def test_sources_and_targets_are_padded_each_for_itself(seed: int) -> None:
    sides = np.random.default_rng(seed).integers(1, 40, (7, 2))
    order = np.argsort(sides.sum(1), kind="stable")
    cost = lambda parts: sum(20 + len(part) * sides[part].max(0).sum() for part in parts)  # noqa: E731
    others = []
    for cuts in itertools.product((False, True), repeat=6):
        bounds = [0, *(place + 1 for place, cut in enumerate(cuts) if cut), 7]
        others.append([order[a:b] for a, b in itertools.pairwise(bounds)])
    assert cost(cut_by_length(sides, 20)) == min(map(cost, others))
