"""A config -> Lightning's Trainer, with what every run has: its checkpoints, loggers, callbacks and messages."""

import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import hydra
import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from domaintune.callbacks.checkpointing import BestCheckpoint, LastCheckpoint
from domaintune.callbacks.compilation import Compilation
from domaintune.callbacks.nonfinite import NonFinite
from domaintune.callbacks.resuming import ExactResume
from domaintune.callbacks.stopping import StepTimer, StopOnSignal
from domaintune.config.schema import Config
from domaintune.errors import UsageError
from domaintune.kernels.hardware import allow_tf32, device_type, machine, resolve_precision
from domaintune.models.sharding import FullyShardedStrategy
from domaintune.runs.checkpoints import WholeCheckpointIO
from domaintune.runs.folder import RunFolder
from domaintune.runs.ranks import launcher

LOSS_SCALE = 2.0**16  # of a loss that is a mean, under fp16: GradScaler's own


def build_trainer(config: Config, run: RunFolder) -> L.Trainer:
    """Lightning's Trainer with the run's checkpoints, loggers and callbacks; its precision resolved."""
    settings: dict[str, Any] = asdict(config.trainer)
    device = device_type(settings["accelerator"])
    settings["precision"], why = resolve_precision(settings["precision"], device)
    run.update(precision={"name": settings["precision"], "why": why, "device": device}, machine=machine(device))
    if isinstance(settings["val_check_interval"], int):
        settings["check_val_every_n_epoch"] = None  # count batches across epochs
    if settings["strategy"] == "fsdp":
        settings["strategy"] = FullyShardedStrategy()
        settings["inference_mode"] = False  # FSDP2 gathers weights into tensors that inference mode would not track
    callbacks = [hydra.utils.instantiate(callback) for callback in config.callbacks.values()]
    if config.model.compile:
        callbacks.insert(0, Compilation())  # before the clocks of the others start
    if (max_time := settings.pop("max_time")) is not None:
        callbacks.insert(0, StepTimer(max_time))  # it is a time for all of it
    # In this order: what is not finite is told before it is saved, and nothing draws after random states are set.
    callbacks += [NonFinite(config.run.on_nonfinite, config.run.max_skipped), ExactResume(config.seed)]
    signals, every = StopOnSignal(), config.checkpoint
    last = LastCheckpoint(run.last, every.every_steps, every.every_minutes, signals)
    return make_trainer(
        **settings,
        callbacks=[*callbacks, signals, best_checkpoint(config, run), last],
        logger=list(loggers(config, run)),
        plugins=plugins(),
        deterministic=config.deterministic,
        default_root_dir=run.path,
        num_sanity_val_steps=0,  # a whole validation comes first
    )


def make_trainer(**settings: Any) -> L.Trainer:
    """Lightning's Trainer; raises UsageError where the settings don't fit each other or this machine."""
    allow_tf32()
    try:
        # Our sampler knows ranks, so Lightning's must not be put around it.
        return L.Trainer(**settings, enable_model_summary=False, use_distributed_sampler=False)
    except (MisconfigurationException, TypeError, ValueError) as error:  # no GPU here, no such strategy, ...
        raise UsageError(f"the trainer group does not fit: {error}") from error


def scale_for_sums(trainer: L.Trainer, labels: float) -> None:
    """Begins with a smaller loss scale under fp16: a task's loss is the sum over a batch's labels, not their mean.

    The usual scale overflows until it is halved often enough, and each time a step is left out.

    Args:
        labels: of a batch, about.
    """
    if getattr(trainer.precision_plugin, "scaler", None) is not None:
        scale = LOSS_SCALE / 2 ** round(math.log2(max(1.0, labels)))
        trainer.precision_plugin.scaler = torch.amp.GradScaler("cuda", init_scale=scale)


def loggers(config: Config, run: RunFolder) -> Iterator[Any]:
    """The loggers of a run.

    Where a process was killed, TensorBoard is told to leave out what it drew after its last checkpoint: that is drawn
    again. A folder without drawings gets no such mark. TensorBoard reads the files of one second in the order of their
    names, which may not be the order of writing, and a mark that is read last hides what this process has drawn.
    """
    step = -1
    if run.resume_from is not None:
        step = torch.load(run.resume_from, weights_only=True, mmap=True, map_location="cpu")["global_step"]
    for logger in config.logger.values():
        made = hydra.utils.instantiate(logger)
        if isinstance(made, TensorBoardLogger) and any(Path(made.log_dir).glob("events.out.tfevents.*")):
            made = hydra.utils.instantiate(logger, purge_step=step + 1)
        yield made


def plugins() -> list[Any]:
    """Checkpoints that are whole; under SLURM our own handler of signals alone."""
    slurm = [SLURMEnvironment(auto_requeue=False)] if launcher() == "slurm" else []
    return [WholeCheckpointIO(), *slurm]


def best_checkpoint(config: Config, run: RunFolder) -> ModelCheckpoint:
    """best.ckpt: the weights of the best validation."""
    return BestCheckpoint(
        dirpath=run.checkpoints,
        filename="best",
        monitor=config.task.monitor,
        mode=config.task.mode,
        save_weights_only=True,
        enable_version_counter=False,  # overwrite: the names are promises
        save_on_train_epoch_end=False,
    )


@contextmanager
def interruptible(trainer: L.Trainer) -> Iterator[None]:
    """Ctrl-C is a KeyboardInterrupt again, of which Lightning makes sys.exit(1); its refusals are UsageErrors."""
    try:
        yield
    except SystemExit as stopped:
        if trainer.interrupted and stopped.code == 1:
            raise KeyboardInterrupt from None
        raise
    except MisconfigurationException as error:
        raise UsageError(f"the trainer group does not fit: {error}") from error


def quiet_libraries() -> None:
    """Hides what Lightning says to people who write a loop of their own: hints on workers, devices and batch sizes."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*infer the `batch_size`.*")
    warnings.filterwarnings("ignore", message=".*`srun` command is available.*")  # whoever wants it, uses it
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")  # counts steps
    warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
    warnings.filterwarnings("ignore", message=".*sync_dist=True.*")  # what we log is reduced already
    warnings.filterwarnings("ignore", message=".*dataloader is not resumable.*")  # ours goes on where it was
    warnings.filterwarnings("ignore", category=FutureWarning)
