"""What a run says of its length and its learning rate before it starts."""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from domaintune.config.checks import check
from domaintune.config.schema import Config
from domaintune.runs.report import _chosen, _length, schedule, verdicts

BATCHES = 40  # of an epoch


@pytest.fixture
def config(compose: Callable[..., Any]) -> Callable[..., Config]:
    return lambda *settings: check(compose("name=told", "data.batch_size=8", *settings))


ENDLESS = ("trainer.max_epochs=-1", "trainer.max_time=00:01:00:00")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ((), "cosine after a warm-up of 2 steps"),
        (("scheduler.warmup_steps=1",), "cosine after a warm-up of 1 step"),
        (("scheduler.warmup_steps=0",), "cosine"),
        (("scheduler=constant", "trainer.max_steps=10"), "constant"),
        (
            ("scheduler.warmup_steps=2000", "trainer.max_steps=10"),
            "cosine after a warm-up of 5 steps; scheduler.warmup_steps=2000 is no less than the run: cut to half of it",
        ),
        (
            ("scheduler=linear", "scheduler.warmup_steps=7", *ENDLESS),
            "linear after a warm-up of 7 steps; it never falls, since trainer.max_time alone ends the run: "
            "trainer.max_steps would let it",
        ),
        (("scheduler=constant", "scheduler.warmup_steps=0", *ENDLESS), "constant"),
    ],
)
def test_the_schedule_is_told_as_it_will_be(
    config: Callable[..., Config], settings: tuple[str, ...], words: str
) -> None:
    assert schedule(config(*settings), BATCHES, devices=1)["words"] == words


def test_the_schedule_counts_optimizer_steps(config: Callable[..., Config]) -> None:
    told = schedule(config("trainer.accumulate_grad_batches=4", "trainer.val_check_interval=1.0"), BATCHES, devices=2)
    assert told["steps"] == math.ceil(BATCHES / 2 / 4)
    assert schedule(config("scheduler.warmup_steps=0", *ENDLESS), BATCHES, devices=1)["steps"] is None


def test_steps_that_are_never_reached_are_told(config: Callable[..., Config]) -> None:
    assert _length(config("trainer.max_steps=5000", "trainer.max_epochs=1"), BATCHES, devices=1).endswith(
        "40 optimizer steps (trainer.max_epochs=1); trainer.max_steps=5000 is more: trainer.max_epochs=-1 lets the run "
        "get there"
    )
    for steps in (10, 40):
        assert "is more" not in _length(
            config(f"trainer.max_steps={steps}", "trainer.max_epochs=1"), BATCHES, devices=1
        )


def test_steps_that_are_set_alone_end_the_run(config: Callable[..., Config]) -> None:
    assert _length(config("trainer.max_steps=5000"), BATCHES, devices=1).endswith(
        "5,000 optimizer steps (trainer.max_steps=5000)"
    )
    assert _length(config(), BATCHES, devices=1).endswith("40 optimizer steps (trainer.max_epochs=1)")


CONFIG = {"task": {"monitor": "val/loss", "mode": "min"}, "optim": {"lr": 0.02}}


@pytest.mark.parametrize(
    ("before", "after", "unigram", "words"),
    [
        (5.0, 4.0, 6.0, []),
        (5.0, 6.0, 7.0, ["training did not help: val/loss was 5 before and is 6 at its best after", "optim.lr=0.002"]),
        (5.0, 5.0, None, ["training did not help"]),
        (5.0, math.nan, None, ["training did not help"]),
        (9.0, 8.0, 7.0, ["val/loss 8 is worse than 7, which the frequencies"]),
    ],
)
def test_a_bad_end_is_told_in_words(before: float, after: float, unigram: float | None, words: list[str]) -> None:
    result = {
        "metrics": {"before": {"val/loss": before}, "after": {"val/loss": after}},
        "unigram": {"val/loss": unigram},
    }
    told = " ".join(verdicts(result, CONFIG))
    assert all(word in told for word in words)
    assert bool(told) is bool(words)


def test_of_a_score_the_higher_is_better() -> None:
    config = {**CONFIG, "task": {"monitor": "val/f1", "mode": "max"}}
    result = {"metrics": {"before": {"val/f1": 0.1}, "after": {"val/f1": 0.2, "val/loss": 3.0}}}
    assert not list(verdicts(result, config))
    result["metrics"]["after"]["val/f1"] = 0.05
    assert "val/f1 was 0.1 before and is 0.05" in " ".join(verdicts(result, config))


@pytest.mark.parametrize(
    ("typed", "chosen"),
    [
        ("name=a data=topic optim.lr=1", ["data=topic"]),
        ("--config-dir 'my own' task=mine name=a", ["--config-dir", "my own", "task=mine"]),
        ("--config-dir=own experiment=x data.path=y", ["--config-dir=own", "experiment=x"]),
        ("trainer.max_steps=3", []),
    ],
)
def test_leaves_that_were_chosen_are_chosen_again(typed: str, chosen: list[str]) -> None:
    run: Any = SimpleNamespace(result={"command": f"python train.py {typed}"})
    assert _chosen(run, "experiment", "task", "data") == chosen
