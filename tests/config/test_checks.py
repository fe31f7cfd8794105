import copy
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from domaintune.config.checks import DEFAULT_LORA_LR, DEFAULT_LR, check, check_callbacks, leaves, no_such_setting
from domaintune.config.comparison import differences, has_default_lr, is_longer
from domaintune.config.hints import ELSEWHERE, nearest
from domaintune.config.programs import CONF
from domaintune.config.schema import Config
from domaintune.config.tasks import LOGGED, declared_task, declared_tasks, direction
from domaintune.errors import UsageError

SMALLEST: dict[str, Any] = {
    "name": "test",
    "model": {"checkpoint": "some/model"},
    "task": {"name": "causal_lm", "monitor": "val/loss", "mode": "min"},
    "scheduler": {"name": "cosine"},
    "trainer": {"max_epochs": 1},
    "paths": {"cache": "cache"},
}


def composed(**settings: Any) -> Any:
    """The smallest config that is right, with settings `group__key=value` changed."""
    config = OmegaConf.create(copy.deepcopy(SMALLEST))
    for key, value in settings.items():
        OmegaConf.update(config, key.replace("__", "."), value, merge=False, force_add=True)
    return config


def checked(**settings: Any) -> Config:
    return check(composed(**settings))


def problem(**settings: Any) -> str:
    with pytest.raises(UsageError) as caught:
        checked(**settings)
    return str(caught.value)


def test_what_is_right_comes_back_typed() -> None:
    config = checked(optim__lr="3e-4", data__batch_size="16", trainer__limit_val_batches=10)
    assert isinstance(config, Config)
    assert (config.optim.lr, config.data.batch_size, config.trainer.limit_val_batches) == (3e-4, 16, 10)


def test_what_is_not_said_has_its_default() -> None:
    assert checked().data == Config().data


@pytest.mark.parametrize("group", ["callbacks", "logger"])
def test_null_switches_a_part_off_or_all_of_them(group: str) -> None:
    mine = {"_target_": "mine.Part"}
    assert getattr(checked(**{group: {"one": None, "mine": mine}}), group) == {"mine": mine}
    assert getattr(checked(**{group: None}), group) == {}


def test_a_group_without_a_choice_is_switched_off() -> None:
    config = composed()
    for group in ("scheduler", "peft", "callbacks", "logger"):
        config.pop(group, None)
    without = check(config)
    assert (without.scheduler.name, without.scheduler.warmup_steps, without.peft.name) == ("constant", 0, "none")
    assert without.callbacks == without.logger == {}


@pytest.mark.parametrize("key", ["name", "model.checkpoint", "task.monitor", "paths.cache"])
def test_a_setting_without_a_default_is_missed(key: str) -> None:
    assert f"{key} is missing" in problem(**{key.replace(".", "__"): "???"})


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("data.batchsize", "data.batch_size"),
        ("optim.learning_rate", "optim.lr"),
        ("learning_rate", "optim.lr"),
        ("lora", "peft=lora"),
        ("num_train_epochs", "trainer.max_epochs"),
        ("report_to", "logger"),
        ("trainer.max_step", "trainer.max_steps"),
        ("training.max_steps", "trainer.max_steps"),
        ("sede", "seed"),
        ("checkpoint.every_minute", "checkpoint.every_minutes"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_known_one(key: str, meant: str | None) -> None:
    message = problem(**{key.replace(".", "__"): 1})
    assert f"there is no setting {key}" in message
    assert meant is None or f"did you mean {meant}?" in message


@pytest.mark.parametrize("key", ["trainer.profiler", "trainer.detect_anomaly", "trainer.plugins"])
def test_nothing_is_guessed_where_nothing_is_alike(key: str) -> None:
    assert "did you mean" not in problem(**{key.replace(".", "__"): 1})


def test_each_name_of_another_program_is_a_setting_here() -> None:
    groups = {path.name for path in CONF.iterdir() if path.is_dir()}
    known = {key for key, _ in leaves(OmegaConf.to_container(OmegaConf.structured(Config)))}
    for meant in ELSEWHERE.values():
        key, _, choice = meant.partition("=")
        if choice and key in groups:
            assert (CONF / key / f"{choice}.yaml").exists(), meant
        else:
            assert key in known | groups | {"callbacks.early_stopping.patience", "data.columns.label"}, meant


def test_nearest_guesses_nothing_far_fetched() -> None:
    assert nearest("zzzz", ["optim.lr", "seed"]) == ""


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.batch_size", "many"),
        ("data.batch_size", 2.5),
        ("optim.lr", "fast"),
        ("fresh", "perhaps"),
        ("seed", None),
        ("optim.betas", 0.9),
        ("data.path", ["a.txt", 3]),
        ("data.path", 5),
        ("data.val_path", {"a": "b"}),
        ("data", None),
        ("data", 5),
        ("trainer.val_check_interval", True),
    ],
)
def test_a_value_of_the_wrong_type_is_named_with_its_key(key: str, value: Any) -> None:
    typed = "null" if value is None else value
    assert f"{key}={typed}: " in problem(**{key.replace(".", "__"): value})


@pytest.mark.parametrize("betas", [[], [0.9], [0.9, 0.99, 0.999]])
def test_betas_are_two(betas: list[float]) -> None:
    assert "optim.betas" in problem(optim__betas=betas)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("model.dropout", -0.1, "at least 0 and at most 0.99"),
        ("model.attention_dropout", 1.0, "at most 0.99"),
        ("data.val_fraction", 0.95, "at most 0.9"),
        ("data.test_fraction", -0.1, "at least 0"),
        ("data.block_size", 1, "at least 2"),
        ("data.batch_size", 0, "at least 1"),
        ("data.num_workers", -1, "at least 0"),
        ("optim.lr", 0.0, "above 0"),
        ("optim.lr", float("nan"), "above 0"),
        ("optim.weight_decay", -0.1, "at least 0"),
        ("optim.eps", 0.0, "above 0"),
        ("scheduler.warmup_steps", -1.0, "at least 0"),
        ("scheduler.min_lr_rate", 1.5, "at most 1"),
        ("trainer.num_nodes", 0, "at least 1"),
        ("trainer.accumulate_grad_batches", 0, "at least 1"),
        ("trainer.gradient_clip_val", -1.0, "at least 0"),
        ("trainer.val_check_interval", 0, "above 0"),
        ("trainer.log_every_n_steps", 0, "at least 1"),
        ("checkpoint.every_steps", 0, "at least 1"),
        ("checkpoint.every_minutes", 0.0, "above 0"),
    ],
)
def test_a_value_out_of_range_is_told_with_the_range(key: str, value: float, words: str) -> None:
    message = problem(**{key.replace(".", "__"): value})
    assert f"{key}={value:g}: must be" in message
    assert words in message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.dropout", 0.0),
        ("data.block_size", 2),
        ("data.num_workers", 0),
        ("optim.weight_decay", 0.0),
        ("scheduler.min_lr_rate", 1.0),
        ("trainer.gradient_clip_val", 0.0),
        ("trainer.val_check_interval", 1.0),
        ("trainer.max_steps", 1),
    ],
)
def test_the_ends_of_a_range_are_allowed(key: str, value: float) -> None:
    assert OmegaConf.select(OmegaConf.create(asdict(checked(**{key.replace(".", "__"): value}))), key) == value


@pytest.mark.parametrize("key", ["seed", "data.split_seed"])
def test_a_seed_that_no_generator_takes_is_told(key: str) -> None:
    assert f"{key}=-1" in problem(**{key.replace(".", "__"): -1})


@pytest.mark.parametrize("key", ["trainer.limit_train_batches", "trainer.limit_val_batches"])
@pytest.mark.parametrize("value", [-1, 0, 1.5])
def test_a_limit_that_lightning_refuses_or_that_leaves_no_batch_is_told(key: str, value: float) -> None:
    assert f"{key}={value:g}" in problem(**{key.replace(".", "__"): value})


@pytest.mark.parametrize(
    ("key", "value", "meant"),
    [
        ("model.init", "pretraned", "pretrained"),
        ("task.name", "causal-lm", "causal_lm"),
        ("task.mode", "minimum", "min"),
        ("data.unit", "paragraphs", "paragraph"),
        ("data.batching", "pad", "padded"),
        ("scheduler.name", "cosin", "cosine"),
        ("trainer.precision", "bf16", "bf16-"),
    ],
)
def test_an_unknown_choice_is_told_with_all_choices_and_the_nearest(key: str, value: str, meant: str) -> None:
    message = problem(**{key.replace(".", "__"): value})
    assert f"{key}={value}: must be one of " in message
    assert f"did you mean {meant}" in message


def test_every_problem_is_told_at_once() -> None:
    message = problem(data__batchsize=4, data__block_size="x", optim__lr=-1, scheduler__name="cosin", name="???")
    assert message.count("\n  - ") == 5
    for key in ("data.batchsize", "data.block_size", "optim.lr", "scheduler.name", "name is missing"):
        assert key in message


def test_a_single_problem_is_one_line() -> None:
    assert "\n" not in problem(optim__lr=-1.0)


def test_an_interpolation_that_leads_nowhere_is_told() -> None:
    with pytest.raises(UsageError, match="nowhere"):
        check(OmegaConf.create({**SMALLEST, "seed": "${nowhere}"}))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"trainer__max_epochs": -1}, "nothing ends this run"),
        ({"trainer__max_steps": 0}, "trainer.max_steps=0"),
        ({"trainer__max_steps": -2}, "trainer.max_steps=-2"),
        ({"trainer__max_epochs": -2}, "trainer.max_epochs=-2"),
        ({"data__val_fraction": 0.5, "data__test_fraction": 0.5}, "leave nothing to train on"),
        ({"data__val_fraction": 0.0}, "nothing to validate on"),
        ({"data__val_path": "val.txt"}, "go with a data.path"),
        ({"data__test_path": "test.txt"}, "go with a data.path"),
        ({"trainer__val_check_interval": 10, "trainer__accumulate_grad_batches": 4}, "must be a multiple of"),
        ({"trainer__val_check_interval": 2.0}, "at most 1.0"),
        ({"optim__betas": [0.9, 1.0]}, "optim.betas"),
        ({"optim__betas": [-0.1, 0.9]}, "optim.betas"),
        ({"trainer__max_time": 3600}, "trainer.max_time=3600: must be days:hours:minutes:seconds"),
        ({"data__prefix": "a "}, "data.prefix goes with data=summaries"),
        ({"data__label_separator": ";"}, "data.label_separator goes with data=sentiment"),
        ({"data__text_column": ""}, "data.text_column= is empty"),
        ({"data__label_separator": ""}, "data.label_separator= is empty"),
        ({"data__group_column": ""}, "data.group_column= is empty"),
    ],
)
def test_settings_that_contradict_each_other_are_told(settings: dict[str, Any], words: str) -> None:
    assert words in problem(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"trainer__max_epochs": -1, "trainer__max_steps": 10},
        {"trainer__max_epochs": -1, "trainer__max_time": "00:00:10:00", "scheduler__warmup_steps": 0},
        {"trainer__max_epochs": -1, "trainer__max_time": {"minutes": 10}, "scheduler__warmup_steps": 0},
        {"trainer__max_epochs": None, "trainer__max_time": "00:00:10:00"},
        {"trainer__val_check_interval": 12, "trainer__accumulate_grad_batches": 4},
        {"trainer__val_check_interval": 0.5, "trainer__accumulate_grad_batches": 4},
        {"data__path": "a.txt", "data__val_path": "b.txt", "data__val_fraction": 0.0},
    ],
)
def test_settings_that_go_together_pass(settings: dict[str, Any]) -> None:
    assert checked(**settings).name == "test"


def test_an_accumulation_of_zero_is_told_next_to_a_counted_interval() -> None:
    message = problem(trainer__accumulate_grad_batches=0, trainer__val_check_interval=4)
    assert "trainer.accumulate_grad_batches=0: must be at least 1" in message


def test_the_learning_rate_that_was_measured_for_a_checkpoint_is_taken_for_it_alone() -> None:
    measured = {"some/model": 3e-3, "another/model": 7e-4}
    assert checked(model__measured_lr=measured).optim.lr == 3e-3
    assert checked(model__measured_lr=measured, model__checkpoint="a/folder").optim.lr == DEFAULT_LR == 5e-5


def test_adapters_have_rates_of_their_own() -> None:
    lora = {
        "model__measured_lr": {"some/model": 3e-3},
        "peft__name": "lora",
        "peft__rank": 8,
        "peft__alpha": 16,
        "peft__dropout": 0.0,
    }
    assert checked(**lora, model__measured_lora_lr={"some/model": 7e-3}).optim.lr == 7e-3
    assert checked(**lora).optim.lr == DEFAULT_LORA_LR == 5e-4, "never from a rate of full training"


def test_the_rate_of_an_earlier_version_counts_as_its_default() -> None:
    for peft, rate in (("none", 2e-3), ("lora", 2e-2)):
        earlier = {
            "model": {"checkpoint": "a", "measured_lr": {"a": 2e-3}},
            "peft": {"name": peft},
            "optim": {"lr": rate},
        }
        assert has_default_lr(earlier)
        assert not has_default_lr({**earlier, "optim": {"lr": 1e-3}})


def test_a_learning_rate_of_ones_own_wins() -> None:
    assert checked(model__measured_lr={"some/model": 3e-3}, optim__lr=1e-4).optim.lr == 1e-4


def test_the_same_config_has_no_differences_after_it_was_written_and_read() -> None:
    config = asdict(checked(trainer__max_time={"minutes": 10}, callbacks={"samples": {"number": 3}}))
    read = OmegaConf.to_container(OmegaConf.create(OmegaConf.to_yaml(OmegaConf.create(config))))
    assert differences(read, config) == []


def test_differences_name_key_old_and_new() -> None:
    old, new = asdict(checked()), asdict(checked(optim__lr=1e-3, optim__betas=[0.9, 0.95], data__path="/a.txt"))
    assert differences(old, new) == [
        ("data.path", None, "/a.txt"),
        ("optim.betas", [0.9, 0.999], [0.9, 0.95]),
        ("optim.lr", 5e-5, 1e-3),
    ]


def test_differences_find_a_key_that_only_one_of_both_has() -> None:
    assert differences({"seed": 0}, {"seed": 0, "later": 1}) == [("later", None, 1)]


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "other"},
        {"fresh": True},
        {"data__num_workers": 4},
        {"trainer__log_every_n_steps": 1},
        {"checkpoint__every_minutes": 1.0, "checkpoint__every_steps": 7},
        {"callbacks": {"samples": {"number": 3}}},
        {"logger": {"tensorboard": {}}},
        {"paths__cache": "elsewhere"},
    ],
)
def test_what_cannot_move_the_numbers_is_no_difference(settings: dict[str, Any]) -> None:
    assert differences(asdict(checked()), asdict(checked(**settings))) == []


@pytest.mark.parametrize(
    "settings",
    [{"seed": 1}, {"deterministic": True}, {"trainer__precision": "32"}, {"model__checkpoint": "other"}],
)
def test_what_can_move_the_numbers_is_a_difference(settings: dict[str, Any]) -> None:
    assert len(differences(asdict(checked()), asdict(checked(**settings)))) == 1


def test_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    config = checked(data__path="a/*.txt", data__val_path="~/b.txt", model__checkpoint="model")
    assert config.data.path == str(tmp_path / "a" / "*.txt")
    assert config.data.val_path == os.path.expanduser("~/b.txt")
    assert config.model.checkpoint == str(tmp_path / "model")
    assert checked(model__checkpoint="some/id").model.checkpoint == "some/id"


def test_an_empty_path_is_told() -> None:
    with pytest.raises(UsageError, match=r"data\.path= is empty"):
        checked(data__path="")


@pytest.mark.parametrize(
    ("key", "old", "new", "longer"),
    [
        ("trainer.max_steps", 10, 20, True),
        ("trainer.max_steps", 20, 10, False),
        ("trainer.max_steps", 20, -1, True),
        ("trainer.max_steps", -1, 20, False),
        ("trainer.max_epochs", None, 3, False),
        ("trainer.max_epochs", 1, None, True),
        ("trainer.max_time", "00:01:00:00", "00:02:00:00", True),
        ("trainer.max_time", {"hours": 2}, "00:01:59:59", False),
        ("data.batch_size", 1, 2, False),
    ],
)
def test_only_a_higher_limit_is_an_extension(key, old, new, longer):
    assert is_longer(key, old, new) == longer


@pytest.mark.parametrize(
    ("callbacks", "names"),
    [
        ({"progress": {"line_seconds": 1}}, []),
        ({"early_stopping": {"patience": 5}}, ["callbacks.early_stopping"]),
        ({"early_stopping": None}, ["callbacks.early_stopping"]),
    ],
)
def test_a_callback_that_may_end_a_run_is_a_setting_like_any_other(callbacks, names):
    old = {"callbacks": {"progress": {"line_seconds": 30}, "early_stopping": {"patience": 3}}}
    new = {"callbacks": {**old["callbacks"], **callbacks}}
    assert [key for key, *_ in differences(old, new)] == names


STOPPING = "lightning.pytorch.callbacks.EarlyStopping"


@pytest.mark.parametrize(
    ("callback", "words"),
    [
        ({"_target_": STOPPING, "monitor": "val/los"}, "callbacks.own.monitor=val/los: must be one of .*mean val/loss"),
        ({"_target_": STOPPING, "monitor": "val/accuracy"}, "callbacks.own.monitor=val/accuracy: must be one of"),
        ({"_target_": "lightning.pytorch.calbacks.EarlyStopping"}, "there is no module lightning.pytorch.calbacks$"),
        ({"_target_": "nowhere.at.All"}, "there is no module nowhere$"),
        ({"patience": 3}, "callbacks.own has no _target_"),
    ],
)
def test_a_callback_that_can_t_be_made_or_watches_nothing_is_told(callback: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        check_callbacks(checked(callbacks={"own": callback}))


def test_a_persons_own_callback_may_log_what_another_watches() -> None:
    watching = {"_target_": STOPPING, "monitor": "val/bleu", "mode": "max"}
    check_callbacks(checked(callbacks={"own": {"_target_": "json.JSONDecoder"}, "stopping": watching}))


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ({}, r"val/bleu: .* isn't known here: set \+callbacks.stopping.mode=min or \+callbacks.stopping.mode=max$"),
        (
            {"mode": None},
            r"val/bleu: .* isn't known here: set callbacks.stopping.mode=min or callbacks.stopping.mode=max$",
        ),
    ],
)
def test_the_direction_of_a_persons_own_metric_is_asked_for(mode: dict[str, Any], words: str) -> None:
    watching = {"_target_": STOPPING, "monitor": "val/bleu", **mode}
    with pytest.raises(UsageError, match=words):
        check_callbacks(checked(callbacks={"own": {"_target_": "json.JSONDecoder"}, "stopping": watching}))


LABELLING = {"data__format": "labels", "data__batching": "padded", "data__path": "a.csv"}


@pytest.mark.parametrize("name", declared_tasks())
def test_a_task_declares_which_values_of_its_metrics_are_better(name: str) -> None:
    task = declared_task(name)
    assert task.monitor in task.metrics
    known = {metric: direction(metric, task) for metric in (*task.metrics, *LOGGED)}
    assert all((mode == "min") == (metric.split("/")[-1] in LOW) for metric, mode in known.items())


def test_the_metrics_of_classes_are_known_by_what_they_begin_with() -> None:
    labels, causal = declared_task("sequence_classification"), declared_task("causal_lm")
    assert direction("val/f1/[open] a/b", labels) == "max"
    assert direction("val/f1/[open] a/b", causal) is None


LOW = ("loss", "perplexity", "bits_per_byte", "grad_norm", "lr")


@pytest.mark.parametrize(("monitor", "mode"), [("val/loss", "min"), ("val/f1", "max"), ("val/accuracy", "max")])
def test_the_direction_follows_the_monitored_metric(monitor: str, mode: str) -> None:
    watching = {
        "own": {"_target_": STOPPING, "monitor": "train/loss"},
        "same": {"_target_": STOPPING, "monitor": monitor},
    }
    task = {"name": "sequence_classification", "monitor": monitor}
    config = checked(task=task, callbacks=watching, **LABELLING)
    check_callbacks(config)
    assert config.task.mode == mode
    assert [each["mode"] for each in config.callbacks.values()] == ["min", mode]


def test_a_direction_that_contradicts_the_metric_is_refused() -> None:
    assert "task.mode=max: lower values of val/loss are better: leave task.mode out, or set it to min" in problem(
        task__mode="max"
    )
    with pytest.raises(
        UsageError, match=r"callbacks\.own\.mode=max: lower values of val/loss .*leave callbacks\.own\.mode"
    ):
        check_callbacks(checked(callbacks={"own": {"_target_": STOPPING, "monitor": "val/loss", "mode": "max"}}))
    assert checked(task__mode="min").task.mode == "min"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"scheduler__warmup_steps": 1.5}, "scheduler.warmup_steps=1.5: a share of all steps is below 1"),
        (
            {"scheduler__warmup_steps": 0.1, "trainer__max_epochs": -1, "trainer__max_time": "00:01:00:00"},
            "scheduler.warmup_steps=0.1 is a share of all steps, and how many there will be isn't known",
        ),
        ({"scheduler__name": "constant", "scheduler__min_lr_rate": 0.1}, "scheduler=constant stays"),
    ],
)
def test_a_schedule_that_can_t_be_followed_is_refused(settings: dict[str, Any], words: str) -> None:
    assert words in problem(**settings)


def test_a_warm_up_of_whole_steps_needs_no_known_length() -> None:
    for steps in (0, 1, 20):
        checked(scheduler__warmup_steps=steps, trainer__max_epochs=-1, trainer__max_time="00:01:00:00")


@pytest.mark.parametrize(
    "callback",
    [
        {"_target_": STOPPING, "monitor": "val/perplexity"},
        {"_target_": STOPPING, "monitor": "train/loss"},
        {"_target_": "domaintune.callbacks.samples.Samples"},
        {"_target_": "collections.OrderedDict.fromkeys"},
        None,
    ],
)
def test_a_callback_that_can_be_made_is_let_through(callback: dict[str, Any] | None) -> None:
    check_callbacks(checked(callbacks={"own": callback}))


def test_roles_of_messages_are_checked() -> None:
    chats = {"data__format": "instructions", "data__path": "a.jsonl"}
    assert checked(**chats, data__roles={"narrator": "user"}).data.roles == {"narrator": "user"}
    assert (
        "data.roles.narrator=asistant: must be one of user, assistant, system, tool; did you mean assistant?"
        in problem(**chats, data__roles={"narrator": "asistant"})
    )
    assert "data.roles goes with data=instructions" in problem(data__roles={"narrator": "user"})


def test_an_argument_of_a_part_that_is_off_names_what_switches_it_on() -> None:
    wanted = "there is no part callbacks.early_stopping; callbacks=early_stopping has it"
    assert no_such_setting("callbacks.early_stopping.patience") == wanted
    assert no_such_setting("callbacks.early_stopping") == wanted
    assert "+callbacks.hello._target_=MODULE.CLASS" in no_such_setting("callbacks.hello")
    assert "+callbacks.samples.top_k=VALUE" in no_such_setting("callbacks.samples.top_k")
