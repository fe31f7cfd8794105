"""How two configs differ, and which differences a run may go on with. Imports nothing heavy."""

import datetime
import math
from typing import Any

from omegaconf import OmegaConf

from domaintune.config import leaves

# Settings that cannot move the numbers: a run may go on with others.
MAY_DIFFER = (
    "name",
    "fresh",
    "model.measured_lr",  # optim.lr is what came of it
    "data.num_workers",
    "trainer.log_every_n_steps",
    "checkpoint.",
    "run.",
    "callbacks.progress.",
    "callbacks.samples.",
    "callbacks.throughput.",
    "sweep.",
    "launcher.",
    "logger.",
    "paths.",
)
# Settings that a run may go on with where they let it train longer.
EXTENDABLE = ("trainer.max_steps", "trainer.max_epochs", "trainer.max_time")


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """(key, old, new) of every setting that differs and can move the numbers."""
    before, after = deciding(old), deciding(new)
    return [
        (key, before.get(key), after.get(key)) for key in sorted({*before, *after}) if before.get(key) != after.get(key)
    ]


def deciding(config: dict[str, Any]) -> dict[str, Any]:
    """The settings of a config that can move the numbers, by their dotted names; a callback is one setting."""
    plain: Any = OmegaConf.to_container(OmegaConf.create(config))
    callbacks = {f"callbacks.{name}": each for name, each in (plain.pop("callbacks", None) or {}).items()}
    settings = {**dict(leaves(plain)), **callbacks}
    return {key: value for key, value in settings.items() if not may_differ(key)}


def may_differ(key: str) -> bool:
    """Whether a setting cannot move the numbers."""
    return f"{key}.".startswith(MAY_DIFFER)


def is_longer(key: str, old: Any, new: Any) -> bool:
    """Whether a setting has changed so that a run trains longer."""
    return key in EXTENDABLE and limit(old) < limit(new)


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
