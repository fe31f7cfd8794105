"""What leaves declare of tasks, ours and a person's own."""

from collections.abc import Callable
from pathlib import Path

import pytest

from domaintune.config import own_leaves
from domaintune.config.tasks import declared_task, declared_tasks, direction, settings_of_tasks

OURS = ["causal_lm", "masked_lm", "seq2seq", "sequence_classification", "token_classification"]


@pytest.fixture
def leaf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Writes a leaf of a task into a folder of a person's own."""
    (tmp_path / "task").mkdir()
    monkeypatch.setattr(own_leaves, "_folder", str(tmp_path))
    return lambda name, text: (tmp_path / "task" / f"{name}.yaml").write_text(text) and None


def test_every_task_of_ours_declares_what_others_ask_of_it() -> None:
    assert [*declared_tasks()] == OURS
    for task in declared_tasks().values():
        assert task.learns_from
        assert task.models
        assert task.pipeline
        assert all(direction(metric, task) in ("min", "max") for metric in task.metrics)
        assert {*task.measured_with} <= {*task.metrics}


def test_a_leaf_that_builds_on_another_declares_the_rest_as_that_does(leaf: Callable[[str, str], None]) -> None:
    leaf("careful", "defaults: [sequence_classification]\nname: careful\nmetrics: {val/loss: min}\n")
    made = declared_task("careful")
    assert (made._target_, made.metrics) == (declared_task("sequence_classification")._target_, {"val/loss": "min"})
    assert [*declared_tasks()] == ["careful", *OURS]


def test_a_leaf_without_a_class_leaves_the_task_of_that_name_as_it_is(leaf: Callable[[str, str], None]) -> None:
    before = declared_tasks()
    leaf("mine", "defaults: [_base]\nname: sequence_classification\nmonitor: val/loss\n")
    assert declared_tasks() == before


@pytest.mark.parametrize("text", ["- a\n- list\n", "a: [1", "just words"])
def test_files_that_are_no_leaves_are_passed_over(leaf: Callable[[str, str], None], text: str) -> None:
    leaf("other", text)
    assert [*declared_tasks()] == OURS


def test_leaves_that_build_on_each_other_end_nothing(leaf: Callable[[str, str], None]) -> None:
    leaf("one", "defaults: [two]\n_target_: a.B\n")
    leaf("two", "defaults: [one]\n")
    assert "one" in declared_tasks()


@pytest.mark.parametrize("name", ["amine", "zmine"])
def test_a_leaf_that_keeps_the_name_it_builds_on_leaves_that_task_as_it_is(
    leaf: Callable[[str, str], None], name: str
) -> None:
    before = declared_tasks()
    leaf(name, "defaults: [sequence_classification]\n_target_: mine.Own\n")
    assert declared_tasks() == before


@pytest.mark.parametrize("settings", ["null", "[smoothing]"])
def test_settings_that_nobody_knows_are_no_settings_of_others(leaf: Callable[[str, str], None], settings: str) -> None:
    leaf("mine", f"defaults: [_base]\n_target_: mine.Own\nsettings: {settings}\n")
    assert settings_of_tasks() == ["class_weights", "generate_examples", "mask_fraction"]
