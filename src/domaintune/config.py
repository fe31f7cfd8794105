"""The typed form of a run's config, and every check that needs neither data nor weights.

This module imports nothing heavy: a wrong setting is told before torch and Lightning are loaded (seconds).
"""

import difflib
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException, ValidationError

PATHS = ("path", "val_path", "test_path")  # of the data group
ROLES = ("prompt", "completion", "messages")  # the columns of instruction data, unless data.columns renames them
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")  # owner/name
DEFAULT_LR = 5e-5  # what Hugging Face's Trainer takes too; suits checkpoints of 100M parameters and more


class UsageError(Exception):
    """The config or the data is wrong, and a person can mend it: one clear message, no traceback, exit status 2."""


@dataclass
class ModelConfig:
    checkpoint: str = MISSING
    init: str = "pretrained"
    dropout: float | None = None
    attention_dropout: float = 0.0
    compile: bool = False
    gradient_checkpointing: bool = False
    measured_lr: dict[str, float] = field(default_factory=dict)


@dataclass
class TaskConfig:
    name: str = MISSING
    monitor: str = MISSING
    mode: str = MISSING


@dataclass
class DataConfig:
    format: str = "text"
    path: Any = None
    val_path: Any = None
    test_path: Any = None
    subset: str | None = None
    unit: str | None = None
    text_column: str = "text"
    columns: dict[str, str] = field(default_factory=dict)
    group_column: str | None = None
    dedup: str = "exact"
    val_fraction: float = 0.1
    test_fraction: float = 0.05
    split_seed: int = 0
    block_size: int = 512
    batching: str = "packed"
    batch_size: int = 8
    num_workers: int = 0


@dataclass
class OptimConfig:
    lr: float | None = None
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8


@dataclass
class SchedulerConfig:
    name: str = MISSING
    warmup_steps: float = 0.0
    min_lr_rate: float = 0.0


@dataclass
class TrainerConfig:
    """Lightning's own Trainer arguments under their own names; `precision` knows `auto` as well."""

    accelerator: str = "auto"
    devices: Any = "auto"
    num_nodes: int = 1
    strategy: str = "auto"
    precision: str = "auto"
    max_epochs: int | None = None
    max_steps: int = -1
    max_time: Any = None
    accumulate_grad_batches: int = 1
    gradient_clip_val: float | None = None
    val_check_interval: int | float = 1.0
    limit_train_batches: int | float = 1.0
    limit_val_batches: int | float = 1.0
    log_every_n_steps: int = 10


@dataclass
class CheckpointConfig:
    every_steps: int | None = None
    every_minutes: float | None = None


@dataclass
class PathsConfig:
    logs: str = "logs"
    runs: str = "logs/runs"
    sweeps: str = "logs/sweeps"
    cache: str = MISSING


@dataclass
class Config:
    """A whole run. `check` makes one from what Hydra composed."""

    name: str = MISSING
    fresh: bool = False
    seed: int = 0
    deterministic: bool = False
    model: ModelConfig = field(default_factory=ModelConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    callbacks: dict[str, Any] = field(default_factory=dict)
    logger: dict[str, Any] = field(default_factory=dict)
    paths: PathsConfig = field(default_factory=PathsConfig)


CHOICES: dict[str, tuple[str, ...]] = {
    "model.init": ("pretrained", "random"),
    "task.name": ("causal_lm",),
    "task.monitor": ("val/loss", "val/perplexity", "val/bits_per_byte"),
    "task.mode": ("min", "max"),
    "data.unit": ("file", "paragraph", "line"),
    "data.format": ("text", "instructions"),
    "data.dedup": ("exact", "near", "none"),
    "data.batching": ("packed", "padded", "concatenated"),
    "scheduler.name": ("cosine", "linear", "constant"),
    "trainer.precision": ("auto", "32", "32-true", "bf16-mixed", "bf16-true", "16-mixed"),
}

# key: (lowest, highest, whether the lowest itself is allowed)
INF = float("inf")
RANGES: dict[str, tuple[float, float, bool]] = {
    "seed": (0, 2**32 - 1, True),
    "model.dropout": (0, 0.99, True),
    "model.attention_dropout": (0, 0.99, True),
    "data.val_fraction": (0, 0.9, True),
    "data.test_fraction": (0, 0.9, True),
    "data.split_seed": (0, 2**32 - 1, True),
    "data.block_size": (2, INF, True),
    "data.batch_size": (1, INF, True),
    "data.num_workers": (0, INF, True),
    "optim.lr": (0, INF, False),
    "optim.weight_decay": (0, INF, True),
    "optim.eps": (0, INF, False),
    "scheduler.warmup_steps": (0, INF, True),
    "scheduler.min_lr_rate": (0, 1, True),
    "trainer.num_nodes": (1, INF, True),
    "trainer.accumulate_grad_batches": (1, INF, True),
    "trainer.gradient_clip_val": (0, INF, True),
    "trainer.val_check_interval": (0, INF, False),
    "trainer.limit_train_batches": (0, INF, False),
    "trainer.limit_val_batches": (0, INF, False),
    "trainer.log_every_n_steps": (1, INF, True),
    "checkpoint.every_steps": (1, INF, True),
    "checkpoint.every_minutes": (0, INF, False),
}


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
    config.optim.lr = config.optim.lr or config.model.measured_lr.get(config.model.checkpoint, DEFAULT_LR)
    return config


def _make_absolute(config: Config) -> None:
    """Paths mean the same from wherever the run is looked at or gone on with."""
    data = config.data
    for name in PATHS:
        path = getattr(data, name)
        setattr(data, name, [_absolute(each) for each in path] if isinstance(path, list) else path and _absolute(path))
    if os.path.isdir(folder := os.path.expanduser(config.model.checkpoint)):
        config.model.checkpoint = os.path.abspath(folder)


def _absolute(path: str) -> str:
    """As it is where it can only be the name of a data set on the Hub."""
    expanded = os.path.expanduser(path)
    return path if HUB_ID.fullmatch(path) and not os.path.lexists(expanded) else os.path.abspath(expanded)


def one_or_list(what: str, problems: list[str]) -> str:
    """`what: problem`, or a list with one problem a line."""
    return f"{what}: {problems[0]}" if len(problems) == 1 else f"{what}:\n  - " + "\n  - ".join(problems)


def nearest(word: str, known: list[str]) -> str:
    """`; did you mean X?` if one of `known` resembles `word`, else an empty string."""
    same_end = [name for name in known if name.split(".")[-1] == word.split(".")[-1]]
    close = same_end or difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


FREE = ("callbacks", "logger", "model.measured_lr", "data.columns", "trainer.max_time")  # their keys are not ours


def _leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict) and path not in FREE:
            yield from _leaves(value, f"{path}.")
        else:
            yield path, value


def _fill(schema: Any, settings: dict[str, Any]) -> dict[str, str]:
    """Writes each setting into the schema on its own, so that all problems are found: {key: problem}."""
    wrong = {}
    for key, value in _leaves(settings):
        try:
            OmegaConf.update(schema, key, value, merge=False)
        except (ConfigKeyError, ConfigAttributeError):
            wrong[key] = no_such_setting(key)
        except ValidationError as error:
            wrong[key] = f"{key}={value}: {str(error).splitlines()[0]}"
    return wrong


def no_such_setting(key: str, settings: Any = Config) -> str:
    """The message for an unknown key of a dataclass (by default the run's), naming the nearest known one."""
    known = [name for name, _ in _leaves(OmegaConf.to_container(OmegaConf.structured(settings)))]
    return f"there is no setting {key}{nearest(key, known)}"


def _ranges(schema: Any, wrong: dict[str, str]) -> Iterator[str]:
    for key, choices in CHOICES.items():
        value = OmegaConf.select(schema, key)
        if key not in wrong and value is not None and value not in choices:
            yield f"{key}={value}: must be one of {', '.join(choices)}{nearest(str(value), list(choices))}"
    for key, (low, high, inclusive) in RANGES.items():
        value = OmegaConf.select(schema, key)
        if key in wrong or value is None:
            continue
        if not (low <= value <= high and math.isfinite(value) and (inclusive or value != low)):
            least = f"at least {low:g}" if inclusive else f"above {low:g}"
            yield f"{key}={value:g}: must be {least}" + (f" and at most {high:g}" if high != INF else "")


def _together(schema: Any) -> Iterator[str]:
    """Settings that contradict each other."""
    trainer, data, betas = schema.trainer, schema.data, schema.optim.betas
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        yield f"optim.betas={list(betas)}: must be two numbers, at least 0 and below 1"
    for key in ("name", *(f"data.{path}" for path in PATHS), "model.checkpoint"):
        if OmegaConf.select(schema, key) in ("", []):
            yield f"{key}= is empty"
    for key in PATHS:
        paths = data[key] if OmegaConf.is_list(data[key]) else [data[key]]
        if not all(isinstance(path, str) or (path is None and len(paths) == 1) for path in paths):
            yield f"data.{key}={data[key]}: must be a path or a list of paths"
    if unknown := [role for role in data.columns if role not in ROLES]:
        yield f"data.columns.{unknown[0]}: must be one of {', '.join(ROLES)}{nearest(unknown[0], list(ROLES))}"
    if data.format == "text" and data.columns:
        yield "data.columns goes with data=instructions; for plain text data.text_column names the column"
    if data.format == "instructions" and data.batching == "concatenated":
        yield "data.batching=concatenated cuts anywhere, also inside an answer: instructions are packed or padded"
    if schema.model.compile and data.batching == "padded":
        yield "model.compile=true compiles for rows of one length, which data.batching=padded doesn't have: pack them"
    if data.format == "instructions" and data.path is None:
        yield "data=instructions has no text of its own: set data.path"
    for key in ("limit_train_batches", "limit_val_batches"):
        if isinstance(trainer[key], float) and trainer[key] > 1:
            yield f"trainer.{key}={trainer[key]:g}: a share is at most 1.0; a whole number is batches"
    if trainer.max_steps < -1 or trainer.max_steps == 0:
        yield f"trainer.max_steps={trainer.max_steps}: must be at least 1, or -1 for no limit"
    if trainer.max_epochs is not None and (trainer.max_epochs < -1 or trainer.max_epochs == 0):
        yield f"trainer.max_epochs={trainer.max_epochs}: must be at least 1, or -1 for no limit"
    if trainer.max_steps == -1 and trainer.max_epochs in (None, -1) and trainer.max_time is None:
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


# Settings that cannot move the numbers: a run may go on with others.
MAY_DIFFER = (
    "name",
    "fresh",
    "data.num_workers",
    "trainer.log_every_n_steps",
    "checkpoint.",
    "callbacks.",
    "logger.",
    "paths.",
)


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """(key, old, new) of every setting that differs and can move the numbers."""
    before, after = (dict(_leaves(OmegaConf.to_container(OmegaConf.create(config)))) for config in (old, new))
    return [
        (key, before.get(key), after.get(key))
        for key in sorted({*before, *after})
        if before.get(key) != after.get(key) and not f"{key}.".startswith(MAY_DIFFER)
    ]
