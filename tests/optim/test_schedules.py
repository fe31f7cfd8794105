import math

import pytest

from domaintune.optim.schedules import warmup_length, warmup_then

SHAPES = ("cosine", "linear", "constant")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("step", "share"), [(0, 1 / 11), (4, 5 / 11), (9, 10 / 11), (10, 1.0)])
def test_warm_up_climbs_in_equal_steps_and_wastes_none_at_zero(shape: str, step: int, share: float) -> None:
    assert warmup_then(shape, step, total_steps=110, warmup_steps=10) == pytest.approx(share, abs=1e-15)


@pytest.mark.parametrize(
    ("shape", "quarter", "middle", "end"),
    [
        ("cosine", 0.5 * (1 + math.sqrt(0.5)), 0.5, 0.0),
        ("linear", 0.75, 0.5, 0.0),
        ("constant", 1.0, 1.0, 1.0),
    ],
)
def test_exact_values_after_warm_up(shape: str, quarter: float, middle: float, end: float) -> None:
    values = [warmup_then(shape, step, total_steps=110, warmup_steps=10) for step in (35, 60, 110)]
    assert values == pytest.approx([quarter, middle, end], abs=1e-15)


@pytest.mark.parametrize(("shape", "middle", "end"), [("cosine", 0.6, 0.2), ("linear", 0.6, 0.2), ("constant", 1, 1)])
def test_min_lr_rate_is_where_it_ends(shape: str, middle: float, end: float) -> None:
    values = [warmup_then(shape, step, total_steps=100, warmup_steps=0, min_lr_rate=0.2) for step in (50, 100)]
    assert values == pytest.approx([middle, end], abs=1e-15)


@pytest.mark.parametrize("shape", SHAPES)
def test_without_warm_up_it_starts_at_the_peak(shape: str) -> None:
    assert warmup_then(shape, 0, total_steps=100, warmup_steps=0) == 1.0


@pytest.mark.parametrize("shape", SHAPES)
def test_a_warm_up_below_one_is_a_share_of_all_steps(shape: str) -> None:
    for step in range(201):
        assert warmup_then(shape, step, 200, 0.05) == warmup_then(shape, step, 200, 10)


def test_a_warm_up_of_one_is_one_step() -> None:
    assert [warmup_then("constant", step, 100, 1) for step in (0, 1)] == [0.5, 1.0]


@pytest.mark.parametrize("shape", SHAPES)
def test_where_nothing_but_time_ends_the_run_the_rate_stays_at_its_peak(shape: str) -> None:
    assert warmup_then(shape, 10**9, math.inf, warmup_steps=10) == 1.0
    assert warmup_then(shape, 0, math.inf, warmup_steps=0.05) == 1.0  # a share of infinity is no warm-up
    assert warmup_then(shape, 4, math.inf, warmup_steps=9) == 0.5


@pytest.mark.parametrize("shape", ["cosine", "linear"])
def test_past_the_end_it_stays_at_the_end(shape: str) -> None:
    assert warmup_then(shape, 500, total_steps=100, warmup_steps=10, min_lr_rate=0.1) == pytest.approx(0.1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("warmup_steps", [10, 11, 2000])
def test_a_warm_up_that_never_ends_is_cut_to_half_of_the_run(shape: str, warmup_steps: int) -> None:
    cut = [warmup_then(shape, step, 10, warmup_steps) for step in range(10)]
    assert cut == [warmup_then(shape, step, 10, 5) for step in range(10)]
    assert cut[5] == 1.0


@pytest.mark.parametrize(
    ("warmup_steps", "total_steps", "length"),
    [
        (9, 10, 9),
        (10, 10, 5),
        (3, 3, 1),
        (1, 1, 0),
        (5, 1, 0),
        (0.5, 9, 4),
        (0, 9, 0),
        (0.99, 100, 99),
        (7, math.inf, 7),
    ],
)
def test_how_long_a_warm_up_is(warmup_steps: float, total_steps: float, length: int) -> None:
    assert warmup_length(warmup_steps, total_steps) == length


def test_a_longer_run_has_the_warm_up_that_is_set() -> None:
    assert [warmup_length(8, total) for total in (6, 8, 9, 100)] == [3, 4, 8, 8]
