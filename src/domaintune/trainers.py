"""A config -> Lightning's Trainer, with what every run has: its checkpoints, loggers, callbacks and messages."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import hydra
import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from domaintune.callbacks.checkpointing import StepCheckpoint
from domaintune.callbacks.compilation import Compilation
from domaintune.config import Config, UsageError
from domaintune.hardware import allow_tf32, device_type, machine, resolve_precision
from domaintune.recording import RunFolder


def build_trainer(config: Config, run: RunFolder) -> L.Trainer:
    """Lightning's Trainer with the run's checkpoints, loggers and callbacks; its precision resolved."""
    settings: dict[str, Any] = asdict(config.trainer)
    device = device_type(settings["accelerator"])
    settings["precision"], why = resolve_precision(settings["precision"], device)
    allow_tf32()
    run.update(precision={"name": settings["precision"], "why": why, "device": device}, machine=machine(device))
    if isinstance(settings["val_check_interval"], int):
        settings["check_val_every_n_epoch"] = None  # count batches across epochs
    callbacks = [hydra.utils.instantiate(callback) for callback in config.callbacks.values()]
    if config.model.compile:
        callbacks.append(Compilation())
    return make_trainer(
        **settings,
        callbacks=[*callbacks, *checkpoints(config, run)],
        logger=[hydra.utils.instantiate(logger) for logger in config.logger.values()],
        deterministic=config.deterministic,
        default_root_dir=run.path,
        num_sanity_val_steps=0,  # a whole validation comes first
    )


def make_trainer(**settings: Any) -> L.Trainer:
    """Lightning's Trainer; raises UsageError where the settings don't fit each other or this machine."""
    try:
        # Our sampler knows ranks, so Lightning's must not be put around it.
        return L.Trainer(**settings, enable_model_summary=False, use_distributed_sampler=False)
    except (MisconfigurationException, TypeError, ValueError) as error:  # no GPU here, no such strategy, ...
        raise UsageError(f"the trainer group does not fit: {error}") from error


def checkpoints(config: Config, run: RunFolder) -> list[ModelCheckpoint]:
    """best.ckpt: the weights of the best validation. last.ckpt: everything, to go on from."""
    common: dict[str, Any] = {
        "dirpath": run.checkpoints,
        "enable_version_counter": False,  # overwrite: the names are promises
        "save_on_train_epoch_end": False,
    }
    best = ModelCheckpoint(
        filename="best", monitor=config.task.monitor, mode=config.task.mode, save_weights_only=True, **common
    )
    every = config.checkpoint
    steps: list[dict[str, Any]] = [{"every_n_train_steps": every.every_steps}] if every.every_steps else []
    minutes: list[dict[str, Any]] = (
        [{"train_time_interval": timedelta(minutes=every.every_minutes)}] if every.every_minutes else []
    )
    return [best, *(StepCheckpoint(filename="last", **common, **when) for when in [*steps, *minutes])]


@contextmanager
def interruptible(trainer: L.Trainer) -> Iterator[None]:
    """Ctrl-C is a KeyboardInterrupt again, of which Lightning makes sys.exit(1); its refusals are UsageErrors."""
    try:
        yield
    except SystemExit:
        if trainer.interrupted:
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
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")  # counts steps
    warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
    warnings.filterwarnings("ignore", message=".*sync_dist=True.*")  # what we log is reduced already
    warnings.filterwarnings("ignore", category=FutureWarning)
