"""Whole sweeps in this process: composed, checked and recorded like any, with trials that end without being started."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.types import HydraContext
from omegaconf import flag_override

from domaintune.runs.folder import RunFolder
from domaintune.sweeps.launching import Start, TrialLauncher
from domaintune.sweeps.sweepers import register_plugins

CONF = Path(__file__).parents[2] / "conf"


@contextmanager
def sweeper(*typed: str) -> Iterator[Any]:
    """The sweeper of `python train.py -m TYPED`; its launcher is its own."""
    register_plugins()
    single = [text for text in typed if not OverridesParser.create().parse_override(text).is_sweep_override()]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", single, return_hydra_config=True)
        with flag_override(config, "readonly", False):
            config.hydra.overrides.task = list(typed)
        HydraConfig.instance().set_config(config)
        context = HydraContext(config_loader=GlobalHydra.instance().config_loader(), callbacks=Callbacks())
        try:
            yield Plugins.instance().instantiate_sweeper(
                hydra_context=context, task_function=lambda _: None, config=config
            )
        finally:
            HydraConfig.instance().cfg = None


def sweep(*typed: str) -> None:
    """What `python train.py -m TYPED` does."""
    with sweeper(*typed) as made:
        made.sweep(list(typed))


def ending(value: Callable[[Start], float]) -> Callable[[TrialLauncher, list[Start]], None]:
    """A `run` of a launcher whose trials finish at once with a metric."""

    def run(launcher: TrialLauncher, starts: list[Start]) -> None:
        for start in starts:
            finish(launcher, start, value(start))
            launcher.ended(start, 0, "")

    return run


def finish(launcher: TrialLauncher, start: Start, value: float) -> None:
    """What a trial's process leaves."""
    folder = RunFolder(start.folder)
    assert not folder.claim(start.config, launcher.preflight._hashes(start.config), "python train.py")
    with folder.recording():
        folder.update(metrics={"after": {start.config.task.monitor: value}})
