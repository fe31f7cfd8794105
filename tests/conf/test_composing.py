"""Everything in conf/ composes, passes the checks and builds what it names."""

import re
from collections.abc import Callable
from pathlib import Path

import hydra
import pytest
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf

from domaintune.config.checks import DEFAULT_LORA_LR, DEFAULT_LR, check
from domaintune.config.schema import Config
from domaintune.errors import UsageError
from domaintune.sweeps.launching import TrialLauncher

Compose = Callable[..., DictConfig]

CONF = Path(__file__).parents[2] / "conf"
DEFAULTS = {key for entry in OmegaConf.load(CONF / "train.yaml").defaults if entry != "_self_" for key in entry}
LEAVES = sorted(
    file.relative_to(CONF).with_suffix("").as_posix().rsplit("/", 1)
    for file in CONF.rglob("*.yaml")
    if file.parent != CONF and not file.name.startswith("_")
)


DATA_OF = {  # of a task
    "causal_lm": "domain",
    "sequence_classification": "topic",
    "token_classification": "entities",
    "seq2seq": "summaries",
    "masked_lm": "masked",
}


def choice(group: str, leaf: str) -> str:
    """What one types to get this leaf."""
    chosen = group in DEFAULTS or group.startswith("hydra/")
    return f"{group}={leaf}" if chosen else f"+{group}={leaf}"


def leaves(group: str) -> list[str]:
    return [leaf for of, leaf in LEAVES if of == group]


@pytest.mark.parametrize(("group", "leaf"), LEAVES)
def test_every_leaf_composes_and_passes_the_checks(compose: Compose, group: str, leaf: str) -> None:
    path = ["data.path=rows.jsonl"] if leaf in ("instructions", "sentiment") else []
    data = [f"data={DATA_OF[leaf]}"] if group == "task" else []
    assert isinstance(check(compose(choice(group, leaf), *data, *path)), Config)


def test_the_defaults_name_every_setting_of_the_schema_but_the_tables_that_may_be_empty(compose: Compose) -> None:
    """So that `--cfg job` shows a person all there is."""
    schema = OmegaConf.to_container(OmegaConf.structured(Config))
    shown = OmegaConf.to_container(compose(), resolve=True)
    assert isinstance(schema, dict)
    assert isinstance(shown, dict)
    for group, settings in schema.items():
        if isinstance(settings, dict) and group not in ("callbacks", "logger"):
            assert settings.keys() == shown[group].keys(), group
    assert schema.keys() == shown.keys()


@pytest.mark.parametrize("leaf", leaves("callbacks"))
def test_every_callback_can_be_made(compose: Compose, leaf: str) -> None:
    callbacks = check(compose(f"callbacks={leaf}")).callbacks
    assert all(isinstance(hydra.utils.instantiate(callback), Callback) for callback in callbacks.values())


@pytest.mark.parametrize("leaf", leaves("logger"))
def test_every_logger_can_be_made(compose: Compose, leaf: str) -> None:
    loggers = check(compose(f"logger={leaf}")).logger
    assert all(isinstance(hydra.utils.instantiate(logger), Logger) for logger in loggers.values())


def test_tensorboard_writes_into_the_runs_own_folder(compose: Compose, tmp_path: Path) -> None:
    logger = hydra.utils.instantiate(check(compose()).logger["tensorboard"])
    assert Path(logger.log_dir) == tmp_path / "run"


@pytest.mark.parametrize("leaf", leaves("model"))
def test_a_measured_learning_rate_is_that_of_the_models_own_checkpoint(compose: Compose, leaf: str) -> None:
    for peft, name, otherwise in (("none", "measured_lr", DEFAULT_LR), ("lora", "measured_lora_lr", DEFAULT_LORA_LR)):
        config = check(compose(f"model={leaf}", f"peft={peft}"))
        measured = getattr(config.model, name)
        assert set(measured) <= {config.model.checkpoint}
        assert config.optim.lr == measured.get(config.model.checkpoint, otherwise)


def test_learning_rates_as_a_person_gets_them(compose: Compose) -> None:
    def lr(*overrides: str) -> float | None:
        return check(compose(*overrides)).optim.lr

    assert lr("model=gpt2") == 5e-5
    assert lr("model=gpt2_tiny", "model.checkpoint=some/other") == 5e-5
    assert lr("model=gpt2_tiny", "optim.lr=3e-4") == 3e-4


def test_without_a_path_everything_needed_is_in_the_package(compose: Compose) -> None:
    config = check(compose())
    assert config.model.checkpoint.startswith("embedded:")
    assert config.data.path is None


def test_an_unknown_key_below_a_new_one_is_told(compose: Compose) -> None:
    with pytest.raises(UsageError, match=r"there is no setting trainer\.max_step; did you mean trainer\.max_steps\?"):
        check(compose("+trainer.max_step=3"))


def test_data_implies_the_task(compose: Compose) -> None:
    for task, data in DATA_OF.items():
        assert check(compose(f"data={data}")).task.name == task
    assert check(compose("data=sentiment", "data.path=a.csv")).task.name == "sequence_classification"


def test_sentiment_without_a_path_says_that_it_has_no_text(compose: Compose) -> None:
    with pytest.raises(UsageError, match=r"data=sentiment has no text of its own: set data\.path"):
        check(compose("data=sentiment"))


def test_a_task_and_data_that_do_not_fit_are_told(compose: Compose) -> None:
    with pytest.raises(UsageError, match=r"task=seq2seq does not learn from data\.format=labels"):
        check(compose("data=topic", "task=seq2seq"))
    with pytest.raises(UsageError, match=r"data\.batching=packed: .* an encoder would see across documents"):
        check(compose("data=masked", "data.batching=packed"))
    with pytest.raises(UsageError, match=r"task\.monitor=val/f1: must be one of val/loss, .* with task=causal_lm"):
        check(compose("task.monitor=val/f1"))


@pytest.mark.parametrize(("watched", "mode"), [("val/loss", "min"), ("val/f1", "max"), ("train/loss", "min")])
def test_early_stopping_and_the_best_checkpoint_follow_their_own_metrics(
    compose: Compose, watched: str, mode: str
) -> None:
    config = check(compose("data=topic", "callbacks=early_stopping", f"callbacks.early_stopping.monitor={watched}"))
    assert config.callbacks["early_stopping"]["mode"] == mode
    assert config.task.mode == "max"
    config = check(compose("data=topic", "callbacks=early_stopping", "task.monitor=val/loss"))
    assert config.callbacks["early_stopping"]["mode"] == config.task.mode == "min"


def test_every_leaf_opens_with_a_comment() -> None:
    silent = [f"{group}/{leaf}" for group, leaf in LEAVES if (CONF / group / f"{leaf}.yaml").read_text()[0] != "#"]
    assert silent == []


def test_paths_are_formed_in_paths_and_hydra_only() -> None:
    forming = {file.parent.name for file in CONF.rglob("*.yaml") if "${paths." in file.read_text()}
    assert forming <= {"paths", "hydra"}


@pytest.mark.parametrize("leaf", leaves("sweep"))
def test_every_sweep_has_a_sweeper_that_can_be_made(leaf: str) -> None:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra.compose("train", overrides=[f"sweep={leaf}", "name=x"], return_hydra_config=True)
    assert isinstance(Plugins.instance()._instantiate(config.hydra.sweeper), Sweeper)


@pytest.mark.parametrize("leaf", leaves("launcher"))
def test_every_launcher_can_be_made(leaf: str) -> None:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra.compose("train", overrides=[f"launcher={leaf}", "name=x"], return_hydra_config=True)
    assert isinstance(Plugins.instance()._instantiate(config.hydra.launcher), TrialLauncher)


def test_the_readme_names_every_choice_of_every_group() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", (CONF.parent / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    told = {group: set(re.findall(r"`(\w+)`", choices)) for group, choices in rows if (CONF / group).is_dir()}
    there = {
        folder.name: {file.stem for file in folder.glob("[a-z]*.yaml")}
        for folder in CONF.iterdir()
        if folder.is_dir() and folder.name in told
    }
    assert told == there
    assert {"model", "peft", "data", "task", "optim", "scheduler", "trainer", "callbacks", "logger"} <= set(told)
