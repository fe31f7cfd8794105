"""A sweep's folder -> its trials: what was set, what became of each. Imports nothing heavy."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from domaintune.config.comparison import may_differ
from domaintune.config.tasks import declared_task
from domaintune.errors import UsageError
from domaintune.files.writing import end_of
from domaintune.runs.folder import read_config

LAST_LINES = 8  # of a failed trial's output
SEED = "seed"


@dataclass(frozen=True)
class Trial:
    """One run of a sweep.

    Attributes:
        overrides: what varies, as one would type it; empty where sweep.json doesn't say.
        state: pending, running, finished, failed or interrupted.
        why: it isn't finished, in a line.
        settings: {dotted key: value} of its config; empty where it came not so far as to have one.
        result: its result.json.
    """

    folder: Path
    number: int
    overrides: tuple[str, ...] = ()
    state: str = "pending"
    exit: int | None = None
    why: str | None = None
    seconds: float = 0.0
    settings: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def metrics(self) -> dict[str, float]:
        """Of best.ckpt."""
        return self.result.get("metrics", {}).get("after", {}) if self.state == "finished" else {}

    def last_lines(self) -> list[str]:
        """The end of what its process printed, else the error that it recorded."""
        file = self.folder / "output.log"
        if not file.exists():
            return str(self.result.get("error") or "").splitlines()[-LAST_LINES:]
        lines = end_of(file).split("\n")
        # A progress bar draws over its line: what counts is what stood there last.
        shown = [line.rstrip("\r").rsplit("\r", 1)[-1].rstrip() for line in lines]
        return [line for line in shown if line][-LAST_LINES:]


@dataclass(frozen=True)
class Sweep:
    """A sweep's folder as it is now, whoever started it; `started` and `ended` are None where no sweep.json is."""

    folder: Path
    trials: tuple[Trial, ...]
    command: str
    started: str | None = None
    ended: str | None = None

    def count(self, *states: str) -> int:
        """How many trials are in one of these states."""
        return sum(trial.state in states for trial in self.trials)


def read_sweep(folder: Path) -> Sweep:
    """Reads sweep.json where there is one, and every trial's own files.

    Raises:
        UsageError: there is no trial.
    """
    record = _json(folder / "sweep.json")
    listed = record.get("trials", {})
    found = [file.parent.name for file in folder.glob("*/config.yaml") if ".before-" not in file.parent.name]
    names = [*listed, *sorted(set(found) - set(listed), key=lambda name: _started(folder / name))]
    if not names:
        raise UsageError(f"{folder}: no trial of a sweep in it")
    trials = tuple(_read_trial(folder / name, number, listed.get(name, {})) for number, name in enumerate(names))
    command = record.get("command") or next((t.result["command"] for t in trials if "command" in t.result), "")
    return Sweep(folder, trials, command, record.get("started"), record.get("ended"))


def _started(folder: Path) -> tuple[str, str]:
    return _json(folder / "result.json").get("started", ""), folder.name


def _json(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def _read_trial(folder: Path, number: int, line: dict[str, Any]) -> Trial:
    """`line` is the trial's in sweep.json."""
    result = _json(folder / "result.json")
    settings = dict(_flat(read_config(folder))) if (folder / "config.yaml").exists() else {}
    if settings:  # an earlier version did not record it
        settings.setdefault("task._target_", declared_task(str(settings.get("task.name")))._target_)
    state = line.get("state") or result.get("status", "pending")
    why = line.get("why")
    monitor = settings.get("task.monitor")
    ended = result.get("status")
    if state in ("pending", "running", "interrupted") and ended in ("finished", "failed"):
        state, why = ended, None  # whoever writes sweep.json was gone by then, or has not seen it yet
    if state == "finished" and not math.isfinite(result.get("metrics", {}).get("after", {}).get(monitor, math.nan)):
        state, why = "failed", why or f"{monitor} is not finite"
    if why is None and state == "failed":
        why = (str(result.get("error") or "").splitlines() or ["it is not known why"])[0]
    return Trial(
        folder,
        line.get("number", number),
        tuple(line.get("overrides", ())),
        state,
        line.get("exit"),
        why,
        line.get("seconds") or result.get("seconds", 0.0),
        settings,
        result,
    )


def _flat(node: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{path}.")
        else:
            yield path, value


def varied_keys(trials: Sequence[Trial]) -> list[str]:
    """The settings that differ between trials, in the order of the config; the seed is not among them.

    Told by the configs, so that it stays right when a grid is widened, and says what a choice as `model=gpt2` meant.
    What can't move the numbers makes no difference, unless it was varied on purpose.
    """
    with_config = [trial.settings for trial in trials if trial.settings]
    purpose = {override.lstrip("+~").partition("=")[0] for trial in trials for override in trial.overrides}
    found = dict.fromkeys(key for settings in with_config for key in settings if key != SEED)
    keys = [key for key in found if key in purpose or not may_differ(key)]
    varied = [key for key in keys if any(each.get(key) != with_config[0].get(key) for each in with_config)]
    return [key for key in varied if key != "task._target_" or "task.name" not in varied]  # which says the same


def trial_overrides(folder: Path) -> list[str] | None:
    """What varies, of the trial in this folder, as one would type it; None where it is a run of its own."""
    trial = _json(folder.parent / "sweep.json").get("trials", {}).get(folder.name)
    return None if trial is None else list(trial["overrides"])


def varied_settings(config: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """{key: value} of overrides as `optim.lr=1e-5` or `model=gpt2`; the value of the config, where that is one."""
    settings = {}
    for override in overrides:
        key, _, text = override.lstrip("+~").partition("=")
        value: Any = config
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        settings[key] = text if value is None or isinstance(value, dict | list) else value
    return settings


def shown(value: Any) -> str:
    """A setting's value as a person would type it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return f"[{','.join(map(shown, value))}]"
    return "null" if value is None else str(value)
