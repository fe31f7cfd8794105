"""Every family does the tasks that it was built for; every other pair is refused."""

import math
from collections.abc import Callable
from typing import Any

import pytest
from transformers import AutoConfig

from domaintune.config.tasks import declared_task, declared_tasks
from domaintune.errors import UsageError
from domaintune.models.families import KINDS
from domaintune.tasks.base import task_class
from domaintune.training import train

FAMILIES = ("gpt2", "llama", "bert", "roberta", "distilbert", "t5")
PAIRS = [(family, task) for family in FAMILIES for task in declared_tasks()]
ALLOWED = [(family, task) for family, task in PAIRS if KINDS[family] in declared_task(task).models]


@pytest.mark.parametrize(("family", "task"), ALLOWED)
def test_an_allowed_pair_trains_and_exports(prepared: Callable[..., Any], family: str, task: str) -> None:
    given, run = prepared(task, family)
    monitored = train(given, run)
    assert math.isfinite(monitored)
    assert run.result["steps"] == 2
    assert run.result["status"] == "finished"
    opened = task_class(declared_task(task)).head.auto.from_pretrained(run.export)
    if given.labels is not None:
        assert AutoConfig.from_pretrained(run.export).id2label == dict(enumerate(given.labels.names))
    assert opened.config.model_type == family


@pytest.mark.parametrize(("family", "task"), [pair for pair in PAIRS if pair not in ALLOWED])
def test_another_pair_is_refused_with_a_reason(prepared: Callable[..., Any], family: str, task: str) -> None:
    with pytest.raises(UsageError, match=rf"{family} is an? .*, so it does not fit task={task}; it fits "):
        prepared(task, family)
