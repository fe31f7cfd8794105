"""Every check of a config that needs neither data nor weights.

This module imports nothing heavy: a wrong setting is told before torch and Lightning are loaded (seconds).
"""

import importlib.util
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    KeyValidationError,
    OmegaConfBaseException,
    ValidationError,
)

from domaintune.config.formats import ROLES, SPEAKERS
from domaintune.config.hints import ELSEWHERE, nearest
from domaintune.config.programs import program
from domaintune.config.schema import Config, PathsConfig, TaskConfig, all_facts
from domaintune.config.tasks import LOGGED, declared_task, declared_tasks, direction, settings_of_tasks, tasks_with
from domaintune.config.wording import for_shell
from domaintune.errors import UsageError

PATHS = ("path", "val_path", "test_path")  # of the data group
PARTS = ("callbacks", "logger")  # groups whose members are parts with a `_target_`
EXPORT_NOTES = "domaintune.json"  # in an export: what this program knows of it
RUN = "run:"  # before the name of a run in model.checkpoint
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")  # owner/name
WATCHERS = ("EarlyStopping", "ModelCheckpoint")  # Lightning's, which take `min` where no mode is given
DEFAULT_LR = 5e-5  # what Hugging Face's Trainer takes too; suits checkpoints of 100M parameters and more
DEFAULT_LORA_LR = 5e-4  # LoRA learns best at ten times that (Schulman et al., "LoRA Without Regret", 2025)
MEASURED = ("measured_lr", "measured_lora_lr")  # of the model group: {checkpoint: the rate that was measured for it}


def check(composed: DictConfig) -> Config:
    """The typed config of `composed`.

    Raises:
        UsageError: naming every problem there is, not only the first.
    """
    try:
        plain = OmegaConf.to_container(composed, resolve=True)
    except OmegaConfBaseException as error:
        raise UsageError(f"the config does not resolve: {error}") from error
    assert isinstance(plain, dict)
    for group in PARTS:  # null switches a part off, or all of them
        plain[group] = {name: each for name, each in (plain.get(group) or {}).items() if each is not None}
    plain["task"] = _with_declarations(plain.get("task") or {})
    schema = OmegaConf.structured(Config)
    wrong = _fill(schema, {str(key): value for key, value in plain.items()})
    wrong |= {str(key): f"{key} is missing" for key in OmegaConf.missing_keys(schema) if key not in wrong}
    # What settings mean together can only be judged where each makes sense alone.
    problems = [*wrong.values(), *_ranges(schema, wrong)] or list(_together(schema))
    if problems:
        raise UsageError(one_or_list("the config is wrong", problems))
    config = OmegaConf.to_object(schema)
    assert isinstance(config, Config)
    _make_absolute(config)
    _set_directions(config)
    if config.trainer.max_epochs is None:
        config.trainer.max_epochs = 1 if config.trainer.max_steps == -1 else -1
    _take_rate_of_export(config)
    config.optim.lr = config.optim.lr or default_lr(vars(config.model), config.peft.name)
    return config


def _with_declarations(task: dict[str, Any]) -> dict[str, Any]:
    """The task group with what its leaf declares, which a config of an earlier version has not.

    Raises:
        UsageError: it names a task that no leaf declares.
    """
    if "name" not in task:
        return task
    known, name = declared_tasks(), str(task["name"])
    if "_target_" in task:
        same = name in known and known[name]._target_ == task["_target_"]
        return {**vars(known[name]), **task} if same else task
    if name not in known:
        raise UsageError(f"task.name={name}: must be one of {', '.join(known)}{nearest(name, list(known))}")
    # Of the settings of others a task took no notice then.
    others = {*settings_of_tasks()} - {*known[name].settings}
    return {**vars(known[name]), **{key: value for key, value in task.items() if key not in others}}


def _take_rate_of_export(config: Config) -> None:
    """An export of this program learns at the rates that were measured for the checkpoint that it was made from."""
    notes = read_object(Path(config.model.checkpoint) / EXPORT_NOTES)
    for name in MEASURED:
        measured, rate = getattr(config.model, name), notes.get(name)
        if config.model.checkpoint not in measured and isinstance(rate, float):
            setattr(config.model, name, {**measured, config.model.checkpoint: rate})


def rates_of(peft: str) -> tuple[str, float]:
    """Where the model group keeps the rates that were measured for `peft.name`, and the rate of other checkpoints."""
    return ("measured_lora_lr", DEFAULT_LORA_LR) if peft == "lora" else ("measured_lr", DEFAULT_LR)


def default_lr(model: Mapping[str, Any], peft: str) -> float:
    """The learning rate where none is set.

    Args:
        model: the model group, {setting: value}.
        peft: `peft.name`.
    """
    name, otherwise = rates_of(peft)
    rate: float = (model.get(name) or {}).get(model["checkpoint"], otherwise)
    return rate


def _set_directions(config: Config) -> None:
    """Sets each `mode` that isn't set to the direction of the metric beside it."""
    config.task.mode = config.task.mode or direction(config.task.monitor, config.task)
    for settings in config.callbacks.values():
        known = direction(str(settings["monitor"]), config.task) if needs_direction(settings) else None
        if known is not None and settings.get("mode") is None:
            settings["mode"] = known


def needs_direction(callback: Any) -> bool:
    """Whether the settings of a callback name a metric, and the callback asks which of its values are better."""
    if not isinstance(callback, dict) or callback.get("monitor") is None:
        return False
    return "mode" in callback or str(callback.get("_target_")).split(".")[-1] in WATCHERS


def _make_absolute(config: Config) -> None:
    """Paths mean the same from wherever the run is looked at or gone on with."""
    data = config.data
    for name in PATHS:
        path = getattr(data, name)
        setattr(data, name, [_absolute(each) for each in path] if isinstance(path, list) else path and _absolute(path))
    for name, path in vars(config.paths).items():
        setattr(config.paths, name, os.path.expanduser(path))
    config.model.checkpoint = find_checkpoint(config.model.checkpoint, config.paths)


def find_checkpoint(checkpoint: str, paths: PathsConfig) -> str:
    """The absolute folder of a checkpoint on this machine, of `run:NAME` the export of that run; else its name.

    Raises:
        UsageError: there is no such run, or it has no export yet.
    """
    if not checkpoint.startswith(RUN):
        folder = os.path.expanduser(checkpoint)
        return os.path.abspath(folder) if os.path.isdir(folder) else checkpoint
    name = checkpoint.removeprefix(RUN)
    try:
        run = find_run(name, paths)
    except UsageError as error:
        raise UsageError(f"model.checkpoint={checkpoint}: {error}") from error
    if not has_export(run):
        makes = f"{program('export')} {for_shell(f'run={run}')} makes one of its best weights so far"
        raise UsageError(f"model.checkpoint={checkpoint}: the run has no export/; {makes}")
    return str(run.absolute() / "export")


def has_export(run: Path) -> bool:
    """Whether the export/ in a run's folder is there, and of its best weights.

    One that was made before the run had finished, or before it went on, is of other weights than best.ckpt now.
    """
    if not (run / "export").is_dir():
        return False
    result, notes = read_object(run / "result.json"), read_object(run / "export" / EXPORT_NOTES)
    try:
        best = (run / "checkpoints" / "best.ckpt.sha256").read_text(encoding="utf-8").split()[0]
    except (OSError, IndexError):
        best = None
    return result.get("status") == "finished" or (best is not None and notes.get("best_sha256") == best)


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object in a file; an empty one where there is none."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def find_run(name: str, paths: PathsConfig) -> Path:
    """The folder of a run by its name, of a sweep's trial by SWEEP/TRIAL, or of either by its path.

    Raises:
        UsageError: there is none.
    """
    for folder in (Path(paths.runs) / name, Path(paths.sweeps) / name, Path(name).expanduser()):
        if (folder / "config.yaml").is_file():
            return folder
    if (folder := Path(paths.sweeps) / name).is_dir():
        trials = sorted(file.parent.name for file in folder.glob("*/config.yaml"))
        raise UsageError(f"it is a sweep; its trials are {', '.join(f'{name}/{trial}' for trial in trials) or 'none'}")
    raise UsageError(f"no run of this name in {paths.runs}, no trial in {paths.sweeps}, and no such folder of a run")


def _absolute(path: str) -> str:
    """As it is where it can only be the name of a data set on the Hub."""
    expanded = os.path.expanduser(path)
    return path if HUB_ID.fullmatch(path) and not os.path.lexists(expanded) else os.path.abspath(expanded)


def one_or_list(what: str, problems: list[str]) -> str:
    """`what: problem`, or a list with one problem a line."""
    return f"{what}: {problems[0]}" if len(problems) == 1 else f"{what}:\n  - " + "\n  - ".join(problems)


def leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of every setting in plain containers; what has keys of its own is one setting."""
    known = all_facts()
    for key, value in node.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict) and not (path in known and known[path].own_keys):
            yield from leaves(value, f"{path}.")
        else:
            yield path, value


NEEDS_A_VALUE = "it needs a value (a text of these four letters is typed in quotes: '\"null\"')"


def _fill(schema: Any, settings: dict[str, Any]) -> dict[str, str]:
    """Writes each setting into the schema on its own, so that all problems are found: {key: problem}."""
    wrong = {}
    for key, value in leaves(settings):
        try:
            OmegaConf.update(schema, key, value, merge=False)
        except (ConfigKeyError, ConfigAttributeError):
            wrong[key] = no_such_setting(key)
        except KeyValidationError as error:
            wrong[key] = f"{key}: {str(error).splitlines()[0]}"
        except ValidationError as error:
            why = str(error).splitlines()[0]
            wrong[key] = f"{key}={value}: {why}" if value is not None else f"{key}=null: {NEEDS_A_VALUE}"
    return wrong


def no_such_setting(key: str, settings: Any = Config) -> str:
    """The message for an unknown key of a dataclass (by default the run's), naming the nearest known one."""
    group, _, part = key.partition(".")
    if settings is Config and group in PARTS and part:
        if part.split(".")[0] in ELSEWHERE:
            name = part.split(".")[0]
            return f"there is no part {group}.{name}; {ELSEWHERE[name]} has it"
        if "." in part:
            return f"{key} is set nowhere; another argument of a part is written with a plus: +{key}=VALUE"
        return f"there is no part {key}; a new one is written with a plus: +{key}._target_=MODULE.CLASS"
    known = [name for name, _ in leaves(OmegaConf.to_container(OmegaConf.structured(settings)))]
    return f"there is no setting {key}{nearest(key, known)}"


def _ranges(schema: Any, wrong: dict[str, str]) -> Iterator[str]:
    """Settings that are none of their choices, or out of their range."""
    for key, facts in all_facts().items():
        value = OmegaConf.select(schema, key, throw_on_missing=False)
        if key in wrong or value is None:
            continue
        if facts.choices and value not in facts.choices:
            yield (
                f"{key}={value}: must be one of {', '.join(facts.choices)}{nearest(str(value), list(facts.choices))}"
            )
        elif isinstance(value, int | float) and not facts.has_in_range(value):
            yield f"{key}={value:g}: must be {facts.range_in_words()}"


def _together(schema: Any) -> Iterator[str]:
    """Settings that contradict each other."""
    trainer, data, betas = schema.trainer, schema.data, schema.optim.betas
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        yield f"optim.betas={list(betas)}: must be two numbers, at least 0 and below 1"
    for key in (key for key, facts in all_facts().items() if facts.filled):
        if OmegaConf.select(schema, key) in ("", []):
            yield f"{key}= is empty"
    for role, column in data.columns.items():
        if not column:
            yield f"data.columns.{role}= is empty"
    for key in PATHS:
        if OmegaConf.is_list(data[key]) and "" in data[key]:
            yield f"data.{key}: a member of the list is empty"
        paths = data[key] if OmegaConf.is_list(data[key]) else [data[key]]
        if not all(isinstance(path, str) or (path is None and len(paths) == 1) for path in paths):
            yield f"data.{key}={data[key]}: must be a path or a list of paths"
    if isinstance(schema.name, str) and (os.path.isabs(schema.name) or {".", ".."} & {*schema.name.split("/")}):
        yield f"name={schema.name}: must name a folder in paths.runs; paths.logs=FOLDER puts runs elsewhere"
    yield from _data_and_task(schema)
    if schema.model.compile and data.batching == "padded":
        yield "model.compile=true compiles for rows of one length, which data.batching=padded doesn't have: pack them"
    if schema.model.compile and trainer.strategy == "fsdp":
        yield "model.compile=true does not go with trainer=fsdp: take trainer=ddp, or leave it uncompiled"
    yield from _partial_training(schema)
    yield from _schedule(schema)
    for key in ("limit_train_batches", "limit_val_batches"):
        if isinstance(trainer[key], float) and trainer[key] > 1:
            yield f"trainer.{key}={trainer[key]:g}: a share is at most 1.0; a whole number is batches"
    if trainer.max_steps < -1 or trainer.max_steps == 0:
        yield f"trainer.max_steps={trainer.max_steps}: must be at least 1, or -1 for no limit"
    if trainer.max_epochs is not None and (trainer.max_epochs < -1 or trainer.max_epochs == 0):
        yield f"trainer.max_epochs={trainer.max_epochs}: must be at least 1, or -1 for no limit"
    for key, time in (("trainer", trainer.max_time), ("sweep", schema.sweep.max_time)):
        parts = OmegaConf.is_dict(time)  # as Lightning takes it: {minutes: 10}
        if not (time is None or parts or (isinstance(time, str) and re.fullmatch(r"\d+:\d\d:\d\d:\d\d", time))):
            yield f"{key}.max_time={time}: must be days:hours:minutes:seconds, as 00:08:00:00"
    if ends_by_time_alone(trainer.max_steps, trainer.max_epochs) and trainer.max_time is None:
        yield "nothing ends this run: set one of trainer.max_epochs, trainer.max_steps, trainer.max_time"
    if data.val_fraction + data.test_fraction >= 1:
        yield "data.val_fraction and data.test_fraction leave nothing to train on: their sum must be below 1"
    if data.val_fraction == 0 and data.val_path is None:
        yield "data.val_fraction=0 leaves nothing to validate on: raise it or set data.val_path"
    if data.path is None and (data.val_path or data.test_path):
        yield "data.val_path and data.test_path go with a data.path"
    interval, accumulate = trainer.val_check_interval, trainer.accumulate_grad_batches
    if isinstance(interval, int) and interval % accumulate:
        yield (
            f"trainer.val_check_interval={interval} counts micro-batches and must be a multiple of "
            f"trainer.accumulate_grad_batches={accumulate}"
        )
    if isinstance(interval, float) and interval > 1:
        yield f"trainer.val_check_interval={interval:g}: a share of an epoch is at most 1.0; a whole number is batches"


def _schedule(schema: Any) -> Iterator[str]:
    """What a schedule of the learning rate can't follow."""
    scheduler, trainer = schema.scheduler, schema.trainer
    warmup = scheduler.warmup_steps
    if warmup > 1 and warmup % 1:
        yield f"scheduler.warmup_steps={warmup:g}: a share of all steps is below 1, and from 1 on it is whole steps"
    if 0 < warmup < 1 and ends_by_time_alone(trainer.max_steps, trainer.max_epochs) and trainer.max_time is not None:
        yield (
            f"scheduler.warmup_steps={warmup:g} is a share of all steps, and how many there will be isn't known where "
            f"trainer.max_time alone ends the run: set scheduler.warmup_steps to whole steps (0 for none), or set "
            f"trainer.max_steps"
        )
    if scheduler.name == "constant" and scheduler.min_lr_rate:
        yield "scheduler.min_lr_rate is where scheduler=cosine and scheduler=linear end: scheduler=constant stays"


def ends_by_time_alone(max_steps: int, max_epochs: int | None) -> bool:
    """Whether neither steps nor epochs end a run, so that its length isn't known."""
    return max_steps == -1 and max_epochs == -1


def _partial_training(schema: Any) -> Iterator[str]:
    peft = schema.peft
    given = [key for key in ("rank", "alpha", "dropout", "targets") if peft[key] is not None]
    if peft.name == "none" and given:
        yield f"peft.{given[0]} goes with peft=lora"
    if peft.name == "lora" and (missing := {"rank", "alpha", "dropout"} - {*given}):
        yield f"peft.name=lora needs peft.{min(missing)}: write peft=lora"
    if peft.name == "lora" and schema.model.init == "random":
        yield "peft=lora adds to pretrained weights: model.init=random has none"
    if peft.name == "lora" and schema.model.resize_embeddings:
        yield "model.resize_embeddings=true adds embeddings, which peft=lora does not train: take peft=none"
    if schema.model.frozen_dtype != "float32" and peft.name == "none" and not schema.model.freeze:
        yield f"model.frozen_dtype={schema.model.frozen_dtype}: nothing is frozen; add peft=lora or model.freeze"
    for key in ("model.freeze", "peft.targets"):
        if "" in (OmegaConf.select(schema, key) or ()):
            yield f"{key}: an empty pattern matches nothing"


def _data_and_task(schema: Any) -> Iterator[str]:
    """What of the data a task can't learn from."""
    data, task = schema.data, schema.task
    roles = ROLES.get(data.format, tuple(data.columns))
    if data.format not in ROLES and (missing := missing_module(data.format) if "." in data.format else ""):
        yield f"data.format={data.format}: there is no module {missing}"
    elif data.format not in ROLES and "." not in data.format:
        yield f"data.format={data.format}: must be one of {', '.join(ROLES)}{nearest(data.format, list(ROLES))}"
    known = declared_tasks()
    if task._target_.startswith("domaintune.") and declared_task(task.name)._target_ != task._target_:
        near = nearest(task.name, list(known))
        yield f"task.name={task.name}: a task is chosen as task=NAME; there are {', '.join(known)}{near}"
    if data.format not in task.learns_from:
        fitting = " or ".join(name for name, each in known.items() if data.format in each.learns_from)
        yield f"task={task.name} does not learn from data.format={data.format}, which is of task={fitting}"
    monitors = [name for name in task.metrics if not name.endswith("*")]
    if task.monitor not in monitors:
        near = nearest(task.monitor, monitors)
        yield f"task.monitor={task.monitor}: must be one of {', '.join(monitors)} with task={task.name}{near}"
    else:
        yield from _direction("task", task.monitor, task.mode, task)
    for key in task.measured_with.get(task.monitor, ()):
        if key.startswith("task.") and OmegaConf.select(schema, key) == 0:
            yield f"task.monitor={task.monitor} is not measured where {key} is 0: raise it"
    if data.columns and not roles:
        yield "data.columns goes with rows of several columns; for plain text data.text_column names the column"
    elif unknown := [role for role in data.columns if role not in roles]:
        yield f"data.columns.{unknown[0]}: must be one of {', '.join(roles)}{nearest(unknown[0], list(roles))}"
    if data.prefix and data.format != "pairs":
        yield "data.prefix goes with data=summaries, whose sources it stands before"
    if data.label_separator and data.format != "labels":
        yield "data.label_separator goes with data=sentiment and data=topic, whose texts have labels"
    if data.roles and data.format != "instructions":
        yield "data.roles goes with data=instructions, whose messages have roles"
    for name, role in (data.roles or {}).items():
        if role not in SPEAKERS:
            yield f"data.roles.{name}={role}: must be one of {', '.join(SPEAKERS)}{nearest(str(role), list(SPEAKERS))}"
    if data.format == "instructions" and data.batching == "concatenated":
        yield "data.batching=concatenated cuts anywhere, also inside an answer: instructions are packed or padded"
    if data.batching != "padded" and task.padded_because:
        yield f"data.batching={data.batching}: task={task.name} takes padded, since {task.padded_because}"
    if data.path is None and data.embedded is None:
        name = {"instructions": "instructions", "labels": "sentiment"}.get(data.format, data.format)
        yield f"data={name} has no text of its own: set data.path"
    for key in settings_of_tasks():
        if key not in task.settings and task[key] != getattr(TaskConfig(), key):
            yield f"task.{key}={task[key]} goes with task={' or '.join(tasks_with(key))}"


def check_callbacks(config: Config) -> None:
    """Raises UsageError where callbacks and loggers of a run that is to be trained can't be made, or watch nothing."""
    if problems := list(_callbacks(config)):
        raise UsageError(one_or_list("the config is wrong", problems))


def _callbacks(config: Config) -> Iterator[str]:
    if missing := missing_module(config.task._target_):
        yield f"task._target_={config.task._target_}: there is no module {missing}"
    made = {f"{group}.{name}": each for group in PARTS for name, each in getattr(config, group).items()}
    # A person's own may log what another one watches.
    ours = all(str(each.get("_target_")).startswith(("domaintune.", "lightning.")) for each in made.values())
    for key, settings in made.items():
        if (target := settings.get("_target_")) is None:
            yield f"{key} has no _target_, the class that it is made of"
        elif missing := missing_module(str(target)):
            yield f"{key}._target_={target}: there is no module {missing}"
        monitor, known = settings.get("monitor"), (*config.task.metrics, *LOGGED)
        if ours and monitor is not None and direction(str(monitor), config.task) is None:
            yield f"{key}.monitor={monitor}: must be one of {', '.join(known)}{nearest(str(monitor), list(known))}"
        elif needs_direction(settings):
            yield from _direction(key, str(monitor), settings.get("mode"), config.task, typed="mode" in settings)


def _direction(key: str, monitor: str, mode: Any, task: Any, typed: bool = True) -> Iterator[str]:
    """What is wrong with the direction of a monitored metric.

    Args:
        key: of the settings in which `monitor` and `mode` stand.
        task: the `task` group, which declares metrics.
        typed: whether there is a `mode`, so that one can type another.
    """
    right = direction(monitor, task)
    if right is None and mode not in ("min", "max"):
        plus = "" if typed else "+"
        yield (
            f"{key}.monitor={monitor}: whether low or high values are better isn't known here: set "
            f"{plus}{key}.mode=min or {plus}{key}.mode=max"
        )
    elif right is not None and mode not in (None, right):
        better = "lower" if right == "min" else "higher"
        yield f"{key}.mode={mode}: {better} values of {monitor} are better: leave {key}.mode out, or set it to {right}"


def missing_module(target: str) -> str | None:
    """The first module in the dotted name of a class that can't be found; none of them is imported."""
    name, folders = "", None
    for part in target.split(".")[:-1]:
        if part[:1].isupper():
            return None  # a class in which another stands
        name = f"{name}.{part}" if name else part
        if name in sys.modules:
            folders = getattr(sys.modules[name], "__path__", None)
        else:
            spec = PathFinder.find_spec(name, folders) if folders else importlib.util.find_spec(name)
            if spec is None:
                return name
            folders = spec.submodule_search_locations
        if folders is None:
            return None  # what follows is of the module's own
    return None
