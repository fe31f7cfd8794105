"""Hydra's sweepers of this program: the grid and the search, each between the sweep's own start and end."""

import sys
from types import ModuleType
from typing import Any

import hydra_plugins
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins

from domaintune.config.schema import Config
from domaintune.errors import UsageError
from domaintune.sweeps.launching import TrialLauncher
from domaintune.sweeps.preflight import corners
from domaintune.sweeps.process_launcher import ProcessLauncher
from domaintune.sweeps.slurm_launcher import SlurmLauncher

Plugins.instance()  # it runs the modules of all plugins once more: classes imported before are not theirs
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper  # noqa: E402
from hydra_plugins.hydra_optuna_sweeper.optuna_sweeper import OptunaSweeper  # noqa: E402

PLUGINS = "hydra_plugins.domaintune"  # Hydra takes plugins from below this package only


class GridSweeper(BasicSweeper):
    """Every combination of the values."""

    launcher: TrialLauncher

    def sweep(self, arguments: list[str]) -> Any:
        """Without Hydra's own checks, which tell the first problem only, and its multirun.yaml."""
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        (batch,) = self.split_arguments(parser.parse_overrides([*self._parse_config(), *arguments]), None)
        with self.launcher.recording():
            return [self.launcher.launch(batch, initial_job_idx=0)]


class SearchSweeper(OptunaSweeper):
    """Optuna asks for trials and is told of them.

    A search that is started again begins anew with the same seed, and is told at once of what has finished: so it asks
    for the same trials as one that was never stopped, and counts them. Optuna's file in the sweep's folder is made anew
    from them, since a study that goes on from its file draws the numbers of its first trials again.
    """

    def setup(self, **context: Any) -> None:
        super().setup(**context)
        typed = [each for each in context["config"].hydra.overrides.hydra if "hydra.sweeper.direction" in each]
        if typed:
            raise UsageError(f"{typed[0]}: the direction of a search is that of task.monitor: leave it out")

    def sweep(self, arguments: list[str]) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        launcher: TrialLauncher = self.sweeper.launcher
        space = self.sweeper._parse_sweeper_params_config()
        with launcher.recording():
            self._follow(launcher.check(corners([*space, *arguments])))
            launcher.strict = False
            launcher.begin()
            for file in launcher.sweep.folder.glob("optuna.db*"):
                file.unlink()
            self.sweeper.sweep(arguments)

    def _follow(self, configs: list[Config]) -> None:
        """Sets the direction of the search. Raises UsageError where trials are judged by several metrics."""
        metrics = {config.task.monitor: config.task.mode for config in configs}
        if len(metrics) > 1:
            raise UsageError(
                f"a search compares its trials by one metric, and these have {', '.join(sorted(metrics))}: set "
                f"task.monitor to one that all of them measure, or take sweep=grid"
            )
        self.sweeper.launcher.direction = mode = next(iter(metrics.values()))
        self.sweeper.direction = "maximize" if mode == "max" else "minimize"


def register_plugins() -> None:
    """Makes the sweepers and launchers known to Hydra, for the configs in conf/hydra."""
    module = ModuleType(PLUGINS)
    for plugin in (GridSweeper, SearchSweeper, ProcessLauncher, SlurmLauncher):
        plugin.__module__ = PLUGINS
        setattr(module, plugin.__name__, plugin)
        Plugins.instance().register(plugin)
    sys.modules[PLUGINS] = module
    setattr(hydra_plugins, PLUGINS.rsplit(".", 1)[1], module)
