"""Before the first trial of a sweep starts: every config that it will have is checked. Imports nothing heavy."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict

from domaintune.config.checks import check, check_callbacks, one_or_list
from domaintune.config.hydra_errors import told_by_hydra
from domaintune.config.schema import Config
from domaintune.errors import UsageError
from domaintune.preparing import prepare

Hashes = dict[str, str | None]
# What all trials of a sweep share.
NEVER_VARIED = ("name", "fresh", "sweep", "launcher", "paths", "hydra")


class Preflight:
    """Composes and checks the configs of trials. Data and checkpoint are looked at once for all that share them.

    Args:
        loader: Hydra's.
        sweep: the config of the sweep itself.
    """

    def __init__(self, loader: Any, sweep: DictConfig) -> None:
        self._loader, self._sweep = loader, sweep
        self._prepared: dict[str, Hashes | UsageError] = {}

    def check(self, overrides: list[str], folder: Path) -> tuple[Config, Hashes]:
        """The config of a trial, and the hashes of what it names.

        Raises:
            UsageError: it can't be composed, is wrong, or names what is missing, damaged or does not fit.
        """
        try:
            composed = self._loader.load_sweep_config(self._sweep, overrides)
        except HydraException as error:
            raise UsageError(told_by_hydra(error)) from error
        with open_dict(composed):
            composed.hydra.runtime.output_dir = str(folder)
        HydraConfig.instance().set_config(composed)  # which settings refer to
        try:
            OmegaConf.set_readonly(composed, False)
            with open_dict(composed):
                del composed["hydra"]
            config = check(composed)
            check_callbacks(config)
        finally:
            HydraConfig.instance().set_config(self._sweep)
        return config, self._hashes(config)

    def _hashes(self, config: Config) -> Hashes:
        model = config.model
        named = [model.checkpoint, model.init, model.resize_embeddings, config.task.name, config.paths.cache]
        key = json.dumps([asdict(config.data), *named])
        if key not in self._prepared:
            try:
                self._prepared[key] = prepare(config).hashes()
            except UsageError as error:
                self._prepared[key] = error
        found = self._prepared[key]
        if isinstance(found, UsageError):
            raise found
        return found


def check_varied(varied: Iterable[str]) -> None:
    """Raises UsageError where a key varies that all trials share."""
    for override in varied:
        key = override.partition("=")[0].lstrip("+~")
        if key.split(".")[0].split("/")[0] in NEVER_VARIED:
            raise UsageError(f"{key} can't vary within a sweep")


def listed(problems: list[tuple[str, str]], trials: int) -> str:
    """One message of all problems, each told once with the trials that have it.

    Args:
        problems: (name of the trial, message).
        trials: how many there are.
    """
    having: dict[str, list[str]] = defaultdict(list)
    for name, message in problems:
        having[message].append(name)
    return one_or_list("the sweep is wrong", list(_worded(having, trials)))


def _worded(having: dict[str, list[str]], trials: int) -> Iterator[str]:
    for message, names in having.items():
        whose = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        if len(names) == trials > 1:
            whose = f"all {trials} trials"
        yield f"{whose}: " + message.replace("\n", "\n    ")


def corners(arguments: list[str]) -> list[list[str]]:
    """Overrides at the bounds of a search space: each bound or choice of a key, with the others at their first.

    Args:
        arguments: overrides, among which are intervals, ranges and choices.
    """
    values = {
        override.get_key_element(): list(_ends(override))
        for override in OverridesParser.create().parse_overrides(arguments)
    }
    firsts = {key: options[0] for key, options in values.items()}
    points = [firsts] + [{**firsts, key: other} for key, options in values.items() for other in options[1:]]
    return [[f"{key}={value}" for key, value in point.items()] for point in points]


def _ends(override: Override) -> Iterator[str]:
    """What an override may become: its choices, or the bounds that Optuna draws from, which is not Hydra's range."""
    from hydra_plugins.hydra_optuna_sweeper._impl import create_optuna_distribution_from_override

    try:
        drawn = create_optuna_distribution_from_override(override)
    except ValueError as error:
        raise UsageError(f"{override.input_line}: {error}") from error
    if isinstance(drawn, str):
        yield drawn
    else:
        yield from map(str, drawn.choices if hasattr(drawn, "choices") else (drawn.low, drawn.high))
