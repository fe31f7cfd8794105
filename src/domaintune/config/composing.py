"""Overrides -> the checked config that train would run with, for the other commands."""

from contextlib import nullcontext
from dataclasses import dataclass

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from domaintune.config.checks import check
from domaintune.config.overrides import quote
from domaintune.config.programs import CONF
from domaintune.config.schema import Config


@dataclass
class PathsArguments:
    """Where runs, sweeps and the cache are, as train has them; None where it is by default."""

    logs: str | None = None
    runs: str | None = None
    sweeps: str | None = None
    cache: str | None = None


def default_config(*overrides: str, paths: PathsArguments | None = None) -> Config:
    """What train would run with these overrides and paths."""
    chosen = {} if paths is None else {name: path for name, path in vars(paths).items() if path is not None}
    given = [f"paths.{name}={quote(path)}" for name, path in chosen.items()]
    inside_train = GlobalHydra.instance().is_initialized()
    with nullcontext() if inside_train else initialize_config_dir(str(CONF), version_base="1.3"):
        return check(compose("train", overrides=["logger=none", *given, *overrides]))
