"""What is known of a setting stands beside it, and fits its default and what conf/ sets."""

import math
from typing import Any

import pytest
from omegaconf import MISSING, OmegaConf

from domaintune.config.checks import leaves
from domaintune.config.comparison import DATA_NAMES, is_longer, may_differ
from domaintune.config.programs import CONF
from domaintune.config.schema import Config, Facts, all_facts

DEFAULTS = dict(leaves(OmegaConf.to_container(OmegaConf.structured(Config))))


def test_every_setting_has_facts() -> None:
    assert set(all_facts()) == {*DEFAULTS}
    assert all(facts.meaning for facts in all_facts().values())


@pytest.mark.parametrize("key", all_facts())
def test_a_default_is_one_that_can_be_set(key: str) -> None:
    facts, default = all_facts()[key], DEFAULTS[key]
    if default in (None, MISSING):
        return
    assert not facts.choices or default in facts.choices
    assert not isinstance(default, int | float) or facts.has_in_range(default)
    assert facts.choices == () or (facts.low, facts.high) == (-math.inf, math.inf), "a text has no range"


def settings_of_conf() -> list[tuple[str, str, Any]]:
    """(leaf, key, value) of every setting that a leaf of a group with a schema sets."""
    found = []
    for leaf in CONF.glob("*/*.yaml"):
        content: Any = OmegaConf.to_container(OmegaConf.load(leaf))
        inside = content if leaf.read_text().startswith("# @package _global_") else {leaf.parent.name: content}
        for key, value in leaves({name: each for name, each in inside.items() if name != "defaults"}):
            if not key.endswith(".defaults") and key in all_facts():
                found.append((f"{leaf.parent.name}/{leaf.stem}", key, value))
    return found


@pytest.mark.parametrize(("leaf", "key", "value"), settings_of_conf())
def test_a_leaf_sets_what_can_be_set(leaf: str, key: str, value: Any) -> None:
    facts = all_facts()[key]
    assert value is None or not facts.choices or value in facts.choices
    assert not isinstance(value, int | float) or facts.has_in_range(value)


@pytest.mark.parametrize(
    ("facts", "value", "fits"),
    [
        (Facts("", low=0), 0, True),
        (Facts("", low=0, low_itself=False), 0, False),
        (Facts("", low=0, high=1), 1, True),
        (Facts("", low=0, high=1), 1.5, False),
        (Facts("", low=0), math.inf, False),
        (Facts("", low=0), math.nan, False),
    ],
)
def test_a_range_has_its_ends_and_nothing_infinite(facts: Facts, value: float, fits: bool) -> None:
    assert facts.has_in_range(value) == fits


@pytest.mark.parametrize("key", ["name", "fresh", "data.num_workers", "checkpoint.keep", "logger", "paths.runs"])
def test_what_moves_no_number_may_differ(key: str) -> None:
    assert may_differ(key)


@pytest.mark.parametrize("key", ["launcher.job.partition", "callbacks.samples", "callbacks.progress.line_seconds"])
def test_so_may_what_stands_within_it(key: str) -> None:
    assert may_differ(key)


@pytest.mark.parametrize("key", ["seed", "optim.lr", "data.batch_size", "callbacks.early_stopping", "names", "run_of"])
def test_all_else_may_not(key: str) -> None:
    assert not may_differ(key)


def test_three_settings_lengthen_a_run_and_eight_name_its_data() -> None:
    assert [key for key, facts in all_facts().items() if facts.lengthens] == [
        "trainer.max_epochs",
        "trainer.max_steps",
        "trainer.max_time",
    ]
    assert is_longer("trainer.max_steps", 10, -1)
    assert not is_longer("optim.lr", 1, 2)
    assert len(DATA_NAMES) == 8
