"""What is known of tasks before torch is loaded: the leaves in conf/task declare it.

A run's config holds what its own task declares; here are all tasks that can be chosen.
"""

import functools
from dataclasses import fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from domaintune.config.own_leaves import folders
from domaintune.config.schema import TaskConfig

LOGGED = ("train/loss", "train/grad_norm", "lr")  # of every task, beside what it measures


def declared_tasks() -> dict[str, TaskConfig]:
    """{name: what its leaf declares} of every task that can be chosen; a person's own leaf stands before ours."""
    known = {each.name for each in fields(TaskConfig)}
    return {
        leaf["name"]: TaskConfig(**{key: value for key, value in leaf.items() if key in known})
        for leaf in _leaves(*folders()).values()
    }


@functools.cache
def _leaves(*folders: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for folder in folders:
        for file in sorted(folder.glob("task/[!_]*.yaml")):
            leaf = OmegaConf.to_container(OmegaConf.load(file))
            assert isinstance(leaf, dict)
            found[file.stem] = {"name": file.stem, **{str(key): value for key, value in leaf.items()}}
    return found


def declared_task(name: str) -> TaskConfig:
    """What the task of this name declares; nothing where there is none."""
    return declared_tasks().get(name, TaskConfig(name=name))


def tasks_with(setting: str) -> list[str]:
    """The names of the tasks that have a setting of their own."""
    return [leaf["name"] for leaf in _leaves(*folders()).values() if setting in leaf]


def direction(metric: str, task: TaskConfig) -> str | None:
    """`min` or `max`, whichever values of a metric are better; None where the task declares no such metric."""
    if metric in LOGGED:
        return "min"
    return next((mode for name, mode in task.metrics.items() if fnmatchcase(metric, name)), None)
