import math

import numpy as np
import pytest

from domaintune.sweeps import comparing
from domaintune.sweeps.comparing import (
    NO_SPREAD,
    TIE,
    UNDECIDABLE,
    WORSE,
    Measured,
    compare,
    draw_documents,
    two_sided_p,
)


@pytest.mark.parametrize(
    ("t", "freedom"), [(12.7062, 1), (4.30265, 2), (2.77645, 4), (2.22814, 10), (1.98397, 100), (1.95996, 1e9)]
)
def test_p_values_are_those_of_the_printed_tables_of_student_s_t(t: float, freedom: float) -> None:
    assert two_sided_p(t, freedom) == two_sided_p(-t, freedom) == pytest.approx(0.05, abs=1e-5)


def test_p_is_one_without_a_difference_and_falls_with_it() -> None:
    assert two_sided_p(0.0, 4) == 1.0
    assert two_sided_p(8.61, 4) == pytest.approx(0.001, rel=1e-3)


def measured(*values: float) -> Measured:
    return Measured(np.array(values))


def test_without_documents_it_is_the_test_of_welch_by_hand() -> None:
    (found,) = compare(measured(1.0, 1.1, 1.2), [measured(1.3, 1.5, 1.7)])
    error = math.sqrt(0.01 / 3 + 0.04 / 3)
    freedom = (0.05 / 3) ** 2 / ((0.01 / 3) ** 2 / 2 + (0.04 / 3) ** 2 / 2)
    assert found.difference == pytest.approx(0.4)
    assert found.standard_error == pytest.approx(error)
    assert found.p == pytest.approx(two_sided_p(0.4 / error, freedom))


@pytest.mark.parametrize("other", [0.90, 0.7])
def test_where_seeds_give_the_same_figure_it_is_not_known_what_chance_does(other: float) -> None:
    (found,) = compare(measured(0.91, 0.91, 0.91), [measured(other, other, other)])
    assert (found.verdict, found.p) == (NO_SPREAD, None)
    assert found.difference == pytest.approx(other - 0.91)


@pytest.mark.parametrize("seeds", [(2, 3), (3, 2), (1, 1)])
def test_with_fewer_than_three_seeds_nothing_is_judged(seeds: tuple[int, int]) -> None:
    one, other = (measured(*np.linspace(level, level + 0.01, n)) for level, n in zip((1.0, 9.0), seeds, strict=True))
    (found,) = compare(one, [other])
    assert (found.verdict, found.p, found.standard_error) == (UNDECIDABLE, None, None)
    assert found.difference > 7


def test_the_same_figures_are_a_tie() -> None:
    (found,) = compare(measured(1.0, 1.1, 1.2), [measured(1.0, 1.1, 1.2)])
    assert (found.verdict, found.p) == (TIE, 1.0)
    (still,) = compare(measured(1.0, 1.0, 1.0), [measured(1.0, 1.0, 1.0)])
    assert still.verdict == TIE


def test_p_is_multiplied_by_the_number_of_pairs_that_can_be_judged() -> None:
    best, others = measured(1.0, 1.1, 1.2), [measured(1.3, 1.5, 1.7), measured(1.2, 1.3, 1.4), measured(5.0)]
    alone = compare(best, others[:1])[0].p
    together = compare(best, others)
    assert alone is not None
    assert together[0].p == pytest.approx(3 * alone)
    assert together[2].verdict == UNDECIDABLE


def test_documents_are_drawn_alike_for_all_runs_and_give_the_standard_error_of_a_ratio() -> None:
    random = np.random.default_rng(0)
    tokens = random.integers(20, 200, 300).astype(float)
    losses = tokens * random.normal(3, 0.5, 300)
    numerators, denominators = np.stack([losses, losses + 0.1 * tokens]), np.stack([tokens, tokens])
    drawn = draw_documents(numerators, denominators, lambda ratio: ratio)
    assert drawn.shape == (2, comparing.DRAWS)
    assert np.allclose(drawn[1] - drawn[0], 0.1), "what all documents share falls out of a difference"
    ratio = losses.sum() / tokens.sum()
    linear = np.sqrt(((losses - ratio * tokens) ** 2).sum()) / tokens.sum()  # the delta method
    assert drawn[0].std() == pytest.approx(linear, rel=0.08)
    assert np.array_equal(drawn, draw_documents(numerators, denominators, lambda ratio: ratio))


def test_drawing_in_parts_draws_as_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "DRAWN_AT_ONCE", 700)
    monkeypatch.setattr(comparing, "DRAWS", 101)
    assert draw_documents(np.ones((3, 40)), np.ones((3, 40)), lambda ratio: ratio).tolist() == [[1.0] * 101] * 3


def test_documents_that_two_models_find_hard_in_other_ways_make_a_difference_uncertain() -> None:
    """A gap that a few documents make is a tie, however well seeds agree."""
    tokens = np.full(20, 100.0)
    plain, other = np.full(20, 300.0), np.full(20, 300.0)
    other[0] += 200
    sides = []
    for losses in (plain, other):
        runs = np.stack([losses + noise for noise in (0.0, 0.1, 0.2)])
        drawn = draw_documents(runs, np.broadcast_to(tokens, runs.shape).copy(), lambda ratio: ratio)
        sides.append(Measured(runs.sum(1) / tokens.sum(), drawn, 20))
    assert compare(sides[0], sides[1:])[0].verdict == TIE
    assert compare(*[Measured(sides[0].values), [Measured(sides[1].values)]])[0].verdict == WORSE


# What a language model's losses are like: documents of log-normal length, that differ far more than seeds do, seeds
# that agree on which are hard, and something of a seed's own in each document.
OF_DOCUMENTS, OF_SEEDS, OF_BOTH = 0.8, 0.01, 0.05


def told(random: np.random.Generator, configurations: int, seeds: int, effect: float = 0.0) -> bool:
    """Whether any difference is told between configurations that are equal, but the first by `effect` better."""
    tokens = np.maximum(2, random.lognormal(4.5, 1.0, 60).round())
    shape = (configurations * seeds, len(tokens))
    mean = 3.5 + random.normal(0, OF_DOCUMENTS, shape[1]) + random.normal(0, OF_BOTH, shape)
    mean += random.normal(0, OF_SEEDS, (shape[0], 1))
    mean[:seeds] -= effect
    sums, lengths = mean * tokens, np.broadcast_to(tokens, shape).copy()
    drawn = draw_documents(sums, lengths, lambda ratio: ratio, seed=int(random.integers(2**31)))
    values = sums.sum(1) / tokens.sum()
    sides = [
        Measured(values[first : first + seeds], drawn[first : first + seeds], shape[1])
        for first in range(0, shape[0], seeds)
    ]
    sides.sort(key=lambda side: float(side.values.mean()))
    return any(found.verdict != TIE for found in compare(sides[0], sides[1:]))


@pytest.mark.parametrize(("configurations", "seeds", "times"), [(2, 3, 3000), (2, 10, 3000), (8, 3, 700), (8, 10, 700)])
def test_of_equals_a_difference_is_told_in_at_most_one_ranking_of_twenty(
    configurations: int, seeds: int, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing, "DRAWS", 100)
    random = np.random.default_rng([configurations, seeds])
    rate = np.mean([told(random, configurations, seeds) for _ in range(times)])
    print(f"{configurations} equal configurations, {seeds} seeds: {rate:.2%} of {times} rankings")
    assert rate < 0.06  # 0.05, and the luck of so many


def test_a_plain_bootstrap_of_three_seeds_would_tell_far_more_of_them() -> None:
    """Why the seeds' level is not drawn: the same figures, judged by the middle 95 % of draws."""
    random, wrong = np.random.default_rng(0), 0
    for _ in range(1000):
        one, other = random.normal(0, 1, (2, 3))
        draws = [side[random.integers(3, size=(400, 3))].mean(1) for side in (one, other)]
        low, high = np.quantile(draws[1] - draws[0], [0.025, 0.975])
        wrong += not low <= 0 <= high
    assert wrong > 100


def test_a_difference_of_several_standard_deviations_of_seeds_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "DRAWS", 200)
    random = np.random.default_rng(3)
    deviation = math.hypot(OF_SEEDS, OF_BOTH / math.sqrt(60 / math.e))  # lengths differ: fewer documents count
    found = np.mean([told(random, 2, 3, effect=6 * deviation) for _ in range(300)])
    print(f"six standard deviations: found in {found:.1%}")
    assert found > 0.8
