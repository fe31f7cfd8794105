"""domaintune train model=gpt2 data=domain: the story of a run, on one screen."""

from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from domaintune.cli.exiting import run_command, told
from domaintune.config.checks import check, check_callbacks
from domaintune.config.programs import CONF
from domaintune.preparing import prepare
from domaintune.runs.folder import RunFolder, typed_command
from domaintune.sweeps.sweepers import register_plugins

register_plugins()


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
@told
def run_one(composed: DictConfig) -> float:
    """Returns the monitored metric of the best checkpoint, for sweeps."""
    config = check(composed)  # every wrong setting at once, before anything heavy is imported
    check_callbacks(config)
    prepared = prepare(config)  # the data is read and the checkpoint found: what is wrong there is told in seconds
    run = RunFolder(Path(HydraConfig.get().runtime.output_dir))
    if run.claim(config, prepared.hashes(), typed_command()):  # it has finished already
        from domaintune.runs.report import print_result

        print_result(run)
        return float(run.result["metrics"]["after"][config.task.monitor])
    from domaintune.training import train

    return train(prepared, run)


def main() -> None:
    run_command(run_one)
