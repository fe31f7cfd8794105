"""What is known of tasks before torch is loaded: the leaves in conf/task declare it.

A run's config holds what its own task declares; here are all tasks that can be chosen.
"""

import functools
from dataclasses import fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from domaintune.config.own_leaves import folders
from domaintune.config.schema import TaskConfig

LOGGED = ("train/loss", "train/grad_norm", "lr")  # of every task, beside what it measures


def declared_tasks() -> dict[str, TaskConfig]:
    """{name: what its leaf declares} of every task that can be chosen."""
    return _declared(*folders())


@functools.cache
def _declared(*folders: Path) -> dict[str, TaskConfig]:
    known = {each.name for each in fields(TaskConfig)}
    names = sorted({file.stem for folder in folders for file in folder.glob("task/[!_]*.yaml")})
    found: dict[str, TaskConfig] = {}
    for name in names:
        leaf = {"name": name, **_leaf(name, folders)}
        # A leaf that declares no class is of an earlier version, and means the task of that name. One that has the name
        # of another leaf, which it builds on, leaves that as it is.
        if "_target_" in leaf and (leaf["name"] == name or leaf["name"] not in names):
            its = {key: value for key, value in leaf.items() if key in known and value is not None}
            found[str(leaf["name"])] = TaskConfig(**its)
    return found


def _leaf(name: str, folders: tuple[Path, ...], above: frozenset[str] = frozenset()) -> dict[str, Any]:
    """A leaf with those that it builds on; a person's own stands before ours. Empty where it can't be read."""
    file = next((each for folder in reversed(folders) if (each := folder / "task" / f"{name}.yaml").is_file()), None)
    try:
        content = OmegaConf.to_container(OmegaConf.load(file)) if file and name not in above else None
    except (OmegaConfBaseException, YAMLError, OSError, UnicodeError):
        content = None
    if not isinstance(content, dict):
        return {}
    own = {str(key): value for key, value in content.items() if key != "defaults"}
    bases = [each for each in content.get("defaults") or () if isinstance(each, str)]
    leaf: dict[str, Any] = {}
    for base in bases if "_self_" in bases else [*bases, "_self_"]:
        leaf |= own if base == "_self_" else _leaf(base, folders, above | {name})
    return leaf


def declared_task(name: str) -> TaskConfig:
    """What the task of this name declares; nothing where there is none."""
    return declared_tasks().get(name, TaskConfig(name=name))


def settings_of_tasks() -> list[str]:
    """The settings that only some tasks have."""
    known = [each.name for each in fields(TaskConfig)]
    return sorted({key for task in declared_tasks().values() for key in task.settings if key in known})


def tasks_with(setting: str) -> list[str]:
    """The names of the tasks that have a setting of their own."""
    return [name for name, task in declared_tasks().items() if setting in task.settings]


def direction(metric: str, task: TaskConfig) -> str | None:
    """`min` or `max`, whichever values of a metric are better; None where the task declares no such metric."""
    if metric in LOGGED:
        return "min"
    return next((mode for name, mode in task.metrics.items() if fnmatchcase(metric, name)), None)
