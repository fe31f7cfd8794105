"""How two configs differ, and which differences a run may go on with. Imports nothing heavy."""

import copy
import datetime
import functools
import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from omegaconf import MISSING, OmegaConf

from domaintune.config.checks import default_lr, ends_by_time_alone, leaves, needs_direction
from domaintune.config.schema import Config, all_facts
from domaintune.config.tasks import declared_task, settings_of_tasks

# Callbacks that cannot move the numbers.
LOOKING_ON = ("progress", "samples", "throughput")
# Settings that only say where data lies: whether it is the same is known by the hashes of what it holds.
DATA_NAMES = tuple(key for key, facts in all_facts().items() if facts.names_data)
CHECKPOINT_NAME = "model.checkpoint"


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """(key, old, new) of every setting that differs and can move the numbers."""
    before, after, unset = deciding(old), deciding(new), defaults()
    found = [
        (key, before.get(key, unset.get(key)), after.get(key, unset.get(key))) for key in sorted({*before, *after})
    ]
    return [(key, one, other) for key, one, other in found if one != other]


def deciding(config: dict[str, Any]) -> dict[str, Any]:
    """The settings of a config that can move the numbers, by their dotted names; a callback is one setting."""
    plain: Any = OmegaConf.to_container(OmegaConf.create(config))
    callbacks = {f"callbacks.{name}": _callback(each) for name, each in (plain.pop("callbacks", None) or {}).items()}
    settings = {**dict(leaves(plain)), **callbacks}
    if columns := settings.get("data.columns"):  # a role that is called by its own name is not renamed
        settings["data.columns"] = {role: name for role, name in columns.items() if name != role}
    endless = ends_by_time_alone(settings.get("trainer.max_steps", 0), settings.get("trainer.max_epochs"))
    if endless and settings.get("scheduler.warmup_steps", 1) < 1:
        settings["scheduler.warmup_steps"] = 0  # what earlier versions made of a share of an unknown length
    task = declared_task(str(settings.get("task.name")))
    if "task._target_" not in settings:  # of an earlier version, in which tasks took no notice of each other's settings
        settings["task._target_"] = task._target_
        for key in {*settings_of_tasks()} - {*task.settings}:
            settings.pop(f"task.{key}", None)
    return {key: value for key, value in settings.items() if not may_differ(key)}


def _callback(settings: Any) -> Any:
    """With the direction that Lightning's callbacks take by themselves, where none is set."""
    return {"mode": "min", **settings} if needs_direction(settings) and "mode" not in settings else settings


@functools.cache
def defaults() -> dict[str, Any]:
    """What each setting is of which a config says nothing: an earlier version did not have it."""
    schema = OmegaConf.to_container(OmegaConf.structured(Config))
    assert isinstance(schema, dict)
    return {key: value for key, value in leaves(schema) if value != MISSING}


def by_content(config: dict[str, Any], hashes: Mapping[str, str | None]) -> dict[str, Any]:
    """A config with hashes in place of the names of what they are of: it is the same wherever that was moved.

    Args:
        hashes: SHA-256 of `data`, `weights` and the `checkpoint`'s other files; what has none is known by its name.
    """
    named: Any = copy.deepcopy(config)
    if hashes.get("data") is not None:
        for key in DATA_NAMES:
            named["data"].pop(key.split(".")[1], None)
        named["data"]["path"] = hashes["data"]
    if hashes.get("weights") is not None:
        if has_default_lr(named):
            named["optim"]["lr"] = None
        named["model"]["checkpoint"] = [hashes["weights"], hashes.get("checkpoint")]
    return named


def has_default_lr(config: dict[str, Any]) -> bool:
    """Whether the learning rate of a config is the one that its checkpoint has by default."""
    lr: float = config["optim"]["lr"]
    model, peft = config["model"], (config.get("peft") or {}).get("name", "none")
    if peft == "lora" and "measured_lora_lr" not in model:  # an earlier version took ten times the other rate
        return lr == 10 * default_lr(model, "none")
    return lr == default_lr(model, peft)


def may_differ(key: str) -> bool:
    """Whether a setting cannot move the numbers."""
    return f"{key}.".startswith(_unmoving())


@functools.cache
def _unmoving() -> tuple[str, ...]:
    """How the names of settings begin that cannot move the numbers."""
    groups = [each.name for each in fields(Config) if not each.metadata.get("moves_numbers", True)]
    alone = [key for key, facts in all_facts().items() if not facts.moves_numbers]
    return tuple(f"{name}." for name in (*groups, *alone, *(f"callbacks.{part}" for part in LOOKING_ON)))


def is_longer(key: str, old: Any, new: Any) -> bool:
    """Whether a setting has changed so that a run trains longer."""
    facts = all_facts().get(key)
    return facts is not None and facts.lengthens and limit(old) < limit(new)


def limit(value: Any) -> float:
    """Steps, epochs or seconds; Lightning's ways to say that there is no limit are infinity."""
    if value in (None, -1):
        return math.inf
    if isinstance(value, dict):
        return datetime.timedelta(**value).total_seconds()
    if isinstance(value, str):  # days:hours:minutes:seconds
        units = zip((86400, 3600, 60, 1), value.split(":"), strict=True)
        return sum(seconds * int(number) for seconds, number in units)
    return float(value)
