import pytest

from domaintune.errors import UsageError
from domaintune.sweeps.preflight import check_varied, corners, listed


def test_corners_are_each_bound_and_choice_with_the_others_at_their_first():
    points = corners(["optim.lr=tag(log, interval(1e-5, 1e-2))", "data.batch_size=choice(4,8,16)", "seed=3"])
    assert points == [
        ["optim.lr=1e-05", "data.batch_size=4", "seed=3"],
        ["optim.lr=0.01", "data.batch_size=4", "seed=3"],
        ["optim.lr=1e-05", "data.batch_size=8", "seed=3"],
        ["optim.lr=1e-05", "data.batch_size=16", "seed=3"],
    ]


@pytest.mark.parametrize(
    ("space", "ends"),
    [
        ("range(16,64)", ["16", "64"]),
        ("range(16,70,step=16)", ["16", "64"]),
        ("int(interval(16,64))", ["16", "64"]),
        ("choice(16,true)", ["16", "True"]),
    ],
)
def test_the_bounds_are_those_that_optuna_draws_from(space, ends):
    assert corners([f"data.block_size={space}"]) == [[f"data.block_size={end}"] for end in ends]


def test_an_interval_that_is_upside_down_is_told():
    with pytest.raises(UsageError, match="interval"):
        corners(["optim.lr=interval(1e-2, 1e-5)"])


def test_a_problem_that_several_trials_have_is_told_once():
    message = listed([("a", "bad"), ("b", "bad"), ("c", "worse\nbecause")], 4)
    assert message == "the sweep is wrong:\n  - a, b: bad\n  - c: worse\n    because"
    assert listed([("a", "bad"), ("b", "bad")], 2) == "the sweep is wrong: all 2 trials: bad"


@pytest.mark.parametrize("override", ["name=a", "paths.logs=b", "+sweep.retry_failed=true", "launcher=process"])
def test_what_all_trials_share_cannot_vary(override):
    with pytest.raises(UsageError, match="can't vary within a sweep"):
        check_varied(["optim.lr=1", override])
