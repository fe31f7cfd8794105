"""Arguments of the scripts: `key=value`, split at the first `=`, so that a prompt or a path is typed as it is.

(`train.py` speaks Hydra's grammar, which gives commas, brackets and further `=` meanings of their own.)
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from domaintune.config import Config, UsageError, check, fill, one_or_list
from domaintune.recording import read_config

CONF = Path(__file__).parents[2] / "conf"


def split_arguments(arguments: list[str], usage: str) -> dict[str, str]:
    """{key: value}; `--help` prints `usage` and ends the process.

    Raises:
        UsageError: an argument without `=`, or a key twice.
    """
    if {"-h", "--help"} & set(arguments):
        print(usage)
        raise SystemExit(0)
    settings: dict[str, str] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals:
            raise UsageError(f"{argument}: arguments are key=value\n{usage}")
        if key in settings:
            raise UsageError(f"{key} is given twice")
        settings[key] = value
    return settings


def typed(schema: Any, settings: Mapping[str, str | None]) -> Any:
    """`settings` in a structured config (a dataclass or one of its instances), as an object of the dataclass.

    Raises:
        UsageError: naming every unknown key and every value of the wrong type.
    """
    structured = OmegaConf.structured(schema)
    if wrong := fill(structured, dict(settings)):
        raise UsageError(one_or_list("the arguments are wrong", list(wrong.values())))
    return OmegaConf.to_object(structured)


def run_folder(run: str, runs: str) -> Path:
    """The folder of a run by its name or by its path.

    Raises:
        UsageError: there is none.
    """
    for folder in (Path(runs) / run, Path(run).expanduser()):
        if (folder / "config.yaml").is_file():
            return folder
    raise UsageError(f"run={run}: no run of this name in {runs}, and no such folder of a run")


def exported(folder: Path) -> Path:
    """The export of a run's folder. Raises UsageError where the run has not come so far."""
    if not (folder / "export").is_dir():
        raise UsageError(
            f"{folder} has no export/: its run has not finished; the same command goes on with it"
        )
    return folder / "export"


def default_config() -> Config:
    """What `python train.py` alone would run."""
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(CONF), version_base="1.3"):
        return check(compose("train", overrides=["logger=none"]))


def config_of_run(folder: Path) -> Config:
    """The config that a run was made with."""
    return check(OmegaConf.create(read_config(folder)))
