"""The typed schema of a run's config: what settings there are, of which type, and what they are unless set."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

# A text, a list of texts or null: a union that OmegaConf has no type for.
TEXT_OR_TEXTS = {"kind": "text or texts"}


@dataclass
class ModelConfig:
    checkpoint: str = MISSING
    init: str = "pretrained"
    dropout: float | None = None
    attention_dropout: float = 0.0
    compile: bool = False
    gradient_checkpointing: bool = False
    resize_embeddings: bool = False
    frozen_dtype: str = "float32"
    freeze: list[str] = field(default_factory=list)
    measured_lr: dict[str, float] = field(default_factory=dict)
    measured_lora_lr: dict[str, float] = field(default_factory=dict)


@dataclass
class PeftConfig:
    name: str = "none"
    rank: int | None = None
    alpha: float | None = None
    dropout: float | None = None
    targets: list[str] | None = None


@dataclass
class TaskConfig:
    name: str = MISSING
    monitor: str = MISSING
    mode: str | None = None
    class_weights: str = "none"
    mask_fraction: float = 0.15
    generate_examples: int = 32


@dataclass
class DataConfig:
    format: str = "text"
    embedded: str | None = "domain"
    path: Any = field(default=None, metadata=TEXT_OR_TEXTS)
    val_path: Any = field(default=None, metadata=TEXT_OR_TEXTS)
    test_path: Any = field(default=None, metadata=TEXT_OR_TEXTS)
    subset: str | None = None
    split: str | None = None
    unit: str | None = None
    text_column: str = "text"
    columns: dict[str, str] = field(default_factory=dict)
    roles: dict[str, str] | None = None
    label_separator: str | None = None
    prefix: str = ""
    encoding: str | None = None
    quoting: str | None = None
    marks: str | None = None
    strict: bool = False
    group_column: str | None = None
    dedup: str = "exact"
    val_fraction: float = 0.1
    test_fraction: float = 0.05
    split_seed: int = 0
    block_size: int = 512
    target_size: int = 128
    batching: str = "packed"
    batch_size: int = 8
    num_workers: int = 0


@dataclass
class OptimConfig:
    lr: float | None = None
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    layer_decay: float = 1.0
    head_lr: float | None = None


@dataclass
class SchedulerConfig:
    name: str = "constant"
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
    keep: str = "all"


@dataclass
class RunConfig:
    on_nonfinite: str = "stop"
    max_skipped: int = 10


@dataclass
class SweepConfig:
    retry_failed: bool = False
    max_time: Any = None
    n_trials: int | None = None


@dataclass
class LauncherConfig:
    n_jobs: int = 1
    job: dict[str, Any] = field(default_factory=dict)


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
    peft: PeftConfig = field(default_factory=PeftConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    run: RunConfig = field(default_factory=RunConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    launcher: LauncherConfig = field(default_factory=LauncherConfig)
    callbacks: dict[str, Any] = field(default_factory=dict)
    logger: dict[str, Any] = field(default_factory=dict)
    paths: PathsConfig = field(default_factory=PathsConfig)
