"""The typed schema of a run's config: what is known of a setting stands beside it.

Its default here is what a config means that says nothing of it, as one of an earlier version; what a run has by default
stands in conf/.
"""

import functools
import math
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from omegaconf import MISSING

from domaintune.config.formats import ROLES

# A text, a list of texts or null: a union that OmegaConf has no type for.
TEXT_OR_TEXTS = "text or texts"


@dataclass(frozen=True)
class Facts:
    """What is known of a setting beside its type.

    Attributes:
        meaning: one line, for people.
        choices: the texts that it can be; any where there are none.
        low, high: the smallest and the largest number that it can be.
        low_itself: whether it can be `low`.
        moves_numbers: whether a run with another value can end with other numbers.
        names_data: it only says where the data lies or how it was written down; what it holds is known by its hash.
        lengthens: a run can be resumed with a value that lets it train longer.
        filled: no empty text can be meant.
        own_keys: it is a dict whose keys are no settings.
    """

    meaning: str
    choices: tuple[str, ...] = ()
    low: float = -math.inf
    high: float = math.inf
    low_itself: bool = True
    moves_numbers: bool = True
    names_data: bool = False
    lengthens: bool = False
    filled: bool = False
    own_keys: bool = False

    def has_in_range(self, value: float) -> bool:
        """Whether a number can be the setting's. Infinite ones and NaN never can, where there is a range."""
        if (self.low, self.high) == (-math.inf, math.inf):
            return True
        return self.low <= value <= self.high and math.isfinite(value) and (self.low_itself or value != self.low)

    def range_in_words(self) -> str:
        """What follows `must be`."""
        least = f"at least {self.low:g}" if self.low_itself else f"above {self.low:g}"
        return least + (f" and at most {self.high:g}" if self.high < math.inf else "")


def setting(default: Any, meaning: str, *, kind: str | None = None, **facts: Any) -> Any:
    """A field of a group: its default, and its Facts.

    Args:
        kind: what it takes, where its type can't say that; see `overrides.kind_of`.
    """
    given = (
        {"default_factory": functools.partial(type(default), default)}
        if isinstance(default, list | dict)
        else {"default": default}
    )
    return field(**given, metadata={"facts": Facts(meaning, **facts), **({"kind": kind} if kind else {})})


def group(settings: type, moves_numbers: bool = True) -> Any:
    """A field of Config that is a group of settings."""
    return field(default_factory=settings, metadata={"moves_numbers": moves_numbers})


@functools.cache
def all_facts() -> dict[str, Facts]:
    """{dotted name: facts} of every setting, in the order of the schema."""
    return dict(_facts_of(Config, "", True))


def _facts_of(settings: type, prefix: str, moves: bool) -> Iterator[tuple[str, Facts]]:
    types = typing.get_type_hints(settings)
    for each in fields(settings):
        if is_dataclass(inner := types[each.name]):
            yield from _facts_of(typing.cast(type, inner), f"{prefix}{each.name}.", each.metadata["moves_numbers"])
        else:
            facts: Facts = each.metadata["facts"]
            yield f"{prefix}{each.name}", facts if moves else _unmoving(facts)


def _unmoving(facts: Facts) -> Facts:
    return Facts(**{**vars(facts), "moves_numbers": False})


@dataclass
class ModelConfig:
    checkpoint: str = setting(
        MISSING,
        "what training starts from: a folder, the id of a model on the Hub, embedded:gpt2_tiny, or run:NAME",
        filled=True,
    )
    init: str = setting(
        "pretrained",
        "random: the shape and tokenizer of the checkpoint, weights drawn anew from seed",
        choices=("pretrained", "random"),
    )
    dropout: float | None = setting(
        None, "after embeddings and in the residual branches; null: the checkpoint's own", low=0, high=0.99
    )
    attention_dropout: float = setting(
        0.0, "of attention weights; above 0 the fused attention is off", low=0, high=0.99
    )
    compile: bool = setting(False, "true: torch.compile, which needs a compiler")
    gradient_checkpointing: bool = setting(
        False, "true: each layer's states are made again in the backward pass: less memory, more time"
    )
    resize_embeddings: bool = setting(
        False, "true: adds rows to the embeddings where the tokenizer has more tokens than the model"
    )
    frozen_dtype: str = setting(
        "float32",
        "bfloat16: what is not trained takes half the memory; needs trainer.precision=bf16-mixed",
        choices=("float32", "bfloat16"),
    )
    freeze: list[str] = setting([], "patterns of the names of parameters that stay as they are; * stands for anything")
    measured_lr: dict[str, float] = setting(
        {}, "the learning rate that was measured for a checkpoint", own_keys=True, moves_numbers=False
    )
    measured_lora_lr: dict[str, float] = setting({}, "likewise under peft=lora", own_keys=True, moves_numbers=False)


@dataclass
class PeftConfig:
    name: str = setting(
        "none",
        "lora: matrices of a low rank are trained, which are added to weights that stay",
        choices=("none", "lora"),
    )
    rank: int | None = setting(None, "of what is added", low=1)
    alpha: float | None = setting(None, "what is added is multiplied by alpha / rank", low=0, low_itself=False)
    dropout: float | None = setting(None, "of what goes into the added matrices", low=0, high=0.99)
    targets: list[str] | None = setting(
        None, "which matrices, as patterns of their names; null: all linear ones of the layers"
    )


@dataclass
class TaskConfig:
    """What a task's leaf declares, which is known before torch is loaded, and the settings that tasks have."""

    _target_: str = setting(MISSING, "the class of the task")
    name: str = setting(MISSING, "what is learnt; data=CHOICE sets it")
    monitor: str = setting(MISSING, "the metric that chooses the best checkpoint")
    mode: str | None = setting(
        None,
        "which values of the monitored metric are better; null: what task.metrics says",
        choices=("min", "max"),
    )
    learns_from: list[str] = setting([], "the formats of data that it can learn from", moves_numbers=False)
    models: list[str] = setting(
        [], "the kinds of models that it can train: decoder, encoder, encoder-decoder", moves_numbers=False
    )
    head: str = setting("", "how the names of transformers' classes for it end", moves_numbers=False)
    metrics: dict[str, str] = setting(
        {}, "what it measures, and which values are better: min or max", own_keys=True, moves_numbers=False
    )
    measured_with: dict[str, list[str]] = setting(
        {},
        "of a metric, what must be alike for two runs to be compared by it: settings, or the tokenizer",
        own_keys=True,
        moves_numbers=False,
    )
    predicts: list[str] = setting([], "the fields of a prediction", moves_numbers=False)
    pipeline: str = setting("", "what the Hub calls its models", moves_numbers=False)
    padded_because: str | None = setting(
        None, "why a row holds one text; null: texts can be packed", moves_numbers=False
    )
    settings: list[str] = setting([], "which of the settings below are its own", moves_numbers=False)
    class_weights: str = setting(
        "none", "balanced weighs a label by how rare it is in training", choices=("none", "balanced")
    )
    mask_fraction: float = setting(0.15, "the share of tokens that is masked", low=0, high=0.9, low_itself=False)
    generate_examples: int = setting(
        32, "how many of the validation side are written out at each validation; 0: none", low=0
    )


@dataclass
class DataConfig:
    format: str = setting("text", f"what a row holds: {', '.join(ROLES)}, or MODULE.CLASS of your own")
    embedded: str | None = setting(
        "domain",
        "what is made from the interpreter where there is no path",
        choices=("domain", "topic", "entities", "summaries"),
    )
    path: Any = setting(
        None,
        "your text: a file, a folder, a pattern, a list of them, or a data set on the Hub; null: the embedded text",
        kind=TEXT_OR_TEXTS,
        filled=True,
        names_data=True,
    )
    val_path: Any = setting(
        None,
        "a validation set of your own; without it data.val_fraction is held out",
        kind=TEXT_OR_TEXTS,
        filled=True,
        names_data=True,
    )
    test_path: Any = setting(None, "likewise for the test set", kind=TEXT_OR_TEXTS, filled=True, names_data=True)
    subset: str | None = setting(None, "of a data set on the Hub", filled=True, names_data=True)
    split: str | None = setting(
        None, "of a data set with splits of its own, the one to train on; null: train", filled=True, names_data=True
    )
    unit: str | None = setting(
        None,
        "what is one document; null: paragraph for a single .txt, else file",
        choices=("file", "paragraph", "line"),
    )
    text_column: str = setting("text", "the column or field that holds the text", filled=True)
    columns: dict[str, str] = setting({}, "what the columns of the other formats are called", own_keys=True)
    roles: dict[str, str] | None = setting(
        None, "of data=instructions: further names of roles, as {narrator: user}", own_keys=True
    )
    label_separator: str | None = setting(
        None, "of labels: where it is set, labels stand in one string, parted by it", filled=True
    )
    prefix: str = setting("", 'of data=summaries: put before each source, as T5 was taught ("summarize: ")')
    encoding: str | None = setting(
        None, "of text files; null: UTF-8, or what a byte order mark says", filled=True, names_data=True
    )
    quoting: str | None = setting(
        None,
        "of .csv and .tsv; none: quotes are letters; null: csv, or none where only that fits the header",
        choices=("csv", "none"),
        names_data=True,
    )
    marks: str | None = setting(
        None,
        "end: the model's own end-of-text token in a text ends a document there; null: it is plain text",
        choices=("end",),
    )
    strict: bool = setting(
        False, "true: a row that can't be used ends the run, in place of being left out and counted", names_data=True
    )
    group_column: str | None = setting(
        None, "rows that are alike in it (author, patient, book) stay on one side", filled=True
    )
    dedup: str = setting(
        "exact", "copies left out; near: also what nearly repeats a held-out text", choices=("exact", "near", "none")
    )
    val_fraction: float = setting(
        0.1, "of the documents, chosen by a hash of their text, to validate on", low=0, high=0.9
    )
    test_fraction: float = setting(0.05, "of the documents, likewise, to measure in the end", low=0, high=0.9)
    split_seed: int = setting(
        0,
        "of the split; apart from seed, so that runs of several seeds are validated on the same",
        low=0,
        high=2**32 - 1,
    )
    block_size: int = setting(512, "tokens in a window; a longer document is cut into several", low=2)
    target_size: int = setting(128, "of data=summaries: tokens of a target; longer ones are cut off and counted", low=2)
    batching: str = setting(
        "packed",
        "packed: as many documents a row as fit, none seeing another; padded: one a row; concatenated: cut anywhere",
        choices=("packed", "padded", "concatenated"),
    )
    batch_size: int = setting(8, "rows per device and micro-batch", low=1)
    num_workers: int = setting(0, "processes that prepare batches", low=0, moves_numbers=False)


@dataclass
class OptimConfig:
    lr: float | None = setting(
        None,
        "the learning rate; null: what was measured for the checkpoint, else 5e-5, or 5e-4 under peft=lora",
        low=0,
        low_itself=False,
    )
    weight_decay: float = setting(0.01, "of matrices; never of biases, norms and embeddings", low=0)
    betas: tuple[float, float] = setting((0.9, 0.999), "of AdamW")
    eps: float = setting(1e-8, "of AdamW", low=0, low_itself=False)
    layer_decay: float = setting(
        1.0, "each layer has this much of the rate of the one above it", low=0, high=1, low_itself=False
    )
    head_lr: float | None = setting(
        None,
        "the learning rate of the head, where it is no part of the pretrained body; null: that of the rest",
        low=0,
        low_itself=False,
    )


@dataclass
class SchedulerConfig:
    name: str = setting("constant", "what follows the warm-up", choices=("cosine", "linear", "constant"))
    warmup_steps: float = setting(0.0, "whole optimizer steps, 1 is one step; below 1: a share of all steps", low=0)
    min_lr_rate: float = setting(0.0, "the lowest rate, as a share of optim.lr", low=0, high=1)


@dataclass
class TrainerConfig:
    """Lightning's own Trainer arguments under their own names; `precision` knows `auto` as well."""

    accelerator: str = setting("auto", "what computes: cpu, gpu, ...")
    devices: Any = setting("auto", "how many, or which")
    num_nodes: int = setting(1, "machines", low=1)
    strategy: str = setting("auto", "how several devices work together: ddp, fsdp, ...")
    precision: str = setting(
        "auto",
        "number format; auto: bf16-mixed where the device computes it natively, else 32",
        choices=("auto", "32", "32-true", "bf16-mixed", "bf16-true", "16-mixed"),
    )
    max_epochs: int | None = setting(
        None, "passes over the training text; null: as many as max_steps needs, else 1; -1: no limit", lengthens=True
    )
    max_steps: int = setting(-1, "optimizer steps to train for; -1: no limit", lengthens=True)
    max_time: Any = setting(None, "days:hours:minutes:seconds", lengthens=True, own_keys=True)
    accumulate_grad_batches: int = setting(1, "micro-batches of an optimizer step", low=1)
    gradient_clip_val: float | None = setting(None, "the largest norm of a step's gradient; null: any", low=0)
    val_check_interval: int | float = setting(
        1.0, "a share of an epoch, or a number of micro-batches, between validations", low=0, low_itself=False
    )
    limit_train_batches: int | float = setting(
        1.0, "a share, or a number, of the batches of an epoch", low=0, low_itself=False
    )
    limit_val_batches: int | float = setting(1.0, "likewise of a validation", low=0, low_itself=False)
    log_every_n_steps: int = setting(10, "optimizer steps between points of the curves", low=1, moves_numbers=False)


@dataclass
class CheckpointConfig:
    every_steps: int | None = setting(None, "optimizer steps between two checkpoints; null: the clock alone", low=1)
    every_minutes: float | None = setting(
        None, "minutes between two checkpoints; null: steps alone", low=0, low_itself=False
    )
    keep: str = setting(
        "all",
        "best: what only a longer training would need is removed when the run has finished",
        choices=("all", "best"),
    )


@dataclass
class RunConfig:
    on_nonfinite: str = setting(
        "stop",
        "what becomes of a step whose loss or gradient is not finite; skip: the weights stay as they were",
        choices=("stop", "skip"),
    )
    max_skipped: int = setting(10, "how many steps can be skipped", low=0)


@dataclass
class SweepConfig:
    retry_failed: bool = setting(False, "true: trials that have failed are tried again, from their last checkpoint")
    max_time: Any = setting(
        None, "days:hours:minutes:seconds for the whole; then the trials that run save and end", own_keys=True
    )
    n_trials: int | None = setting(None, "of a search: how many in all", low=1)


@dataclass
class LauncherConfig:
    n_jobs: int = setting(1, "trials at a time", low=1)
    job: dict[str, Any] = setting({}, "of launcher=slurm: what a job asks for", own_keys=True)


@dataclass
class PathsConfig:
    logs: str = setting("logs", "where runs and sweeps lie")
    runs: str = setting("logs/runs", "where the folders of runs lie")
    sweeps: str = setting("logs/sweeps", "where those of sweeps lie")
    cache: str = setting(MISSING, "where what is made once lies: encoded text, weights out of packages")


@dataclass
class Config:
    """A whole run. `check` makes one from what Hydra composed."""

    name: str = setting(
        MISSING, "what the run is called; the same name again resumes it", filled=True, moves_numbers=False
    )
    fresh: bool = setting(False, "true: the folder of an earlier run of this name is moved aside", moves_numbers=False)
    seed: int = setting(0, "of new weights, of dropout and of the order of the data", low=0, high=2**32 - 1)
    deterministic: bool = setting(
        False, "true: only algorithms that give the same bits every time, where the device has them"
    )
    model: ModelConfig = group(ModelConfig)
    peft: PeftConfig = group(PeftConfig)
    task: TaskConfig = group(TaskConfig)
    data: DataConfig = group(DataConfig)
    optim: OptimConfig = group(OptimConfig)
    scheduler: SchedulerConfig = group(SchedulerConfig)
    trainer: TrainerConfig = group(TrainerConfig)
    checkpoint: CheckpointConfig = group(CheckpointConfig, moves_numbers=False)
    run: RunConfig = group(RunConfig, moves_numbers=False)
    sweep: SweepConfig = group(SweepConfig, moves_numbers=False)
    launcher: LauncherConfig = group(LauncherConfig, moves_numbers=False)
    callbacks: dict[str, Any] = setting({}, "parts with a _target_ of their own", own_keys=True)
    logger: dict[str, Any] = setting({}, "likewise", own_keys=True, moves_numbers=False)
    paths: PathsConfig = group(PathsConfig, moves_numbers=False)
