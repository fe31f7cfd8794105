"""A prepared config -> a trained model (build, measure, fit, measure again, export, record), or its measure alone."""

import logging
import platform
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import hydra
import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from domaintune.callbacks.checkpointing import StepCheckpoint
from domaintune.callbacks.samples import Samples
from domaintune.callbacks.throughput import Throughput
from domaintune.config import Config, UsageError
from domaintune.data.datamodule import TextDataModule
from domaintune.exporting import export
from domaintune.memory import keep_freed_memory, peak_memory_gb
from domaintune.models.attention import check_isolation, isolate_documents
from domaintune.models.loading import load_causal_lm, load_tokenizer
from domaintune.precision import resolve_precision
from domaintune.preparing import Prepared
from domaintune.recording import RunFolder, read_config
from domaintune.reporting import model_card, print_plan, print_result
from domaintune.tasks.causal_lm import CausalLM, model_inputs


def train(prepared: Prepared, run: RunFolder) -> float:
    """Trains, and goes on from last.ckpt where the run's folder has one.

    Returns:
        the monitored metric of best.ckpt.
    """
    with run.recording():
        return _train(prepared, run)


def _train(prepared: Prepared, run: RunFolder) -> float:
    started, config = time.perf_counter(), prepared.config
    quiet_libraries()
    L.seed_everything(config.seed, workers=True, verbose=False)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    trainer = build_trainer(config, run)
    data, task = build(prepared, trainer)
    describe(prepared, run, trainer, data, task)
    with interruptible(trainer):
        _measure_and_fit(config, run, trainer, task, data)
    after = run.result["metrics"]["after"]
    run.update(seconds=time.perf_counter() - started)
    if trainer.is_global_zero:
        log_hyperparameters(trainer, run, after)
        _export(prepared, run, data, task)
        print_result(run)
    return float(after[config.task.monitor])


def _measure_and_fit(config: Config, run: RunFolder, trainer: L.Trainer, task: CausalLM, data: TextDataModule) -> None:
    if "before" not in run.result.get("metrics", {}):
        run.update(metrics={"before": validate(trainer, task, data)}, samples={"before": sample_texts(trainer)})
    fit(config, run, trainer, task, data)
    best = torch.load(run.best, weights_only=True, map_location=task.device)
    if best["global_step"] == task.validated_at_step:
        after, texts = run.result["metrics"]["last"], sample_texts(trainer)
    else:
        task.load_state_dict(best["state_dict"])
        loggers, trainer.loggers = trainer.loggers, []  # the curve ends with the last weights, not with the best
        after, texts = validate(trainer, task, data), sample_texts(trainer)
        trainer.loggers = loggers
    run.update(metrics={"after": after}, samples={"after": texts})


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


def evaluate(prepared: Prepared) -> tuple[dict[str, float], int]:
    """The metrics of a checkpoint on the test side of the documents, and how many tokens were predicted."""
    quiet_libraries()
    settings = prepared.config.trainer
    precision, _ = resolve_precision(settings.precision, device_type(settings.accelerator))
    trainer = make_trainer(
        accelerator=settings.accelerator,
        devices=1,
        precision=precision,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=sys.stderr.isatty(),
    )
    data, task = build(prepared, trainer)
    with interruptible(trainer):
        trainer.test(task, datamodule=data, verbose=False)
    return task.evaluation, data.datasets["test"].predicted_tokens


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


def build_trainer(config: Config, run: RunFolder) -> L.Trainer:
    """Lightning's Trainer with the run's checkpoints, loggers and callbacks; its precision resolved."""
    settings: dict[str, Any] = asdict(config.trainer)
    accelerator = device_type(settings["accelerator"])
    settings["precision"], why = resolve_precision(settings["precision"], accelerator)
    run.update(
        precision={"name": settings["precision"], "why": why, "device": accelerator}, machine=machine(accelerator)
    )
    if isinstance(settings["val_check_interval"], int):
        settings["check_val_every_n_epoch"] = None  # count batches across epochs
    callbacks = [hydra.utils.instantiate(callback) for callback in config.callbacks.values()]
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


def machine(accelerator: str) -> str:
    """What computes, in words: a figure means nothing without it."""
    if accelerator == "cuda":
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    name = torch.cpu.get_capabilities().get("cpu_name") or platform.machine()
    return f"{name}, {torch.get_num_threads()} threads"


def device_type(accelerator: str) -> str:
    """The torch device type that Lightning will choose for an accelerator setting."""
    if accelerator in ("auto", "gpu"):
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    return accelerator


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


def build(prepared: Prepared, trainer: L.Trainer) -> tuple[TextDataModule, CausalLM]:
    """The encoded data and the task around the loaded model."""
    config = prepared.config
    tokenizer = load_tokenizer(prepared.checkpoint)
    data = TextDataModule(config.data, prepared.splits, tokenizer, config.seed, config.paths.cache)
    dtype = torch.bfloat16 if trainer.precision == "bf16-true" else torch.float32
    model = load_causal_lm(prepared.checkpoint, config.model, dtype, config.seed)
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        raise UsageError(f"{prepared.checkpoint.name}: its tokenizer has more tokens than its model has embeddings")
    task = CausalLM(model, config.optim, config.scheduler)
    if config.data.batching != "padded":
        keep_freed_memory()  # rows of one length make tensors of the same sizes at every step
        isolate_documents(model)
        if (example := data.packed_example()) is not None:
            check_isolation(model, model_inputs(example))
    return data, task


def describe(prepared: Prepared, run: RunFolder, trainer: L.Trainer, data: TextDataModule, task: CausalLM) -> None:
    """Records and prints what is about to happen, with the derived numbers."""
    checkpoint = prepared.checkpoint
    run.update(
        weights={
            "checkpoint": checkpoint.name,
            "found": checkpoint.found,
            "init": prepared.config.model.init,
            "parameters": sum(parameter.numel() for parameter in task.model.parameters()),
        },
        data=data.account(),
    )
    if trainer.is_global_zero:
        print_plan(prepared.config, run, trainer.world_size)


def validate(trainer: L.Trainer, task: CausalLM, data: TextDataModule) -> dict[str, float]:
    """The validation metrics of the weights in memory."""
    trainer.validate(task, datamodule=data, verbose=False)
    return task.evaluation


def sample_texts(trainer: L.Trainer) -> dict[str, str]:
    """{prompt: continuation} of the latest validation; empty where the callback is switched off."""
    return next((dict(cb.texts) for cb in trainer.callbacks if isinstance(cb, Samples)), {})


def fit(config: Config, run: RunFolder, trainer: L.Trainer, task: CausalLM, data: TextDataModule) -> None:
    """Trains to the end and sees to it that the last weights were validated too, and kept where they are the best."""
    started = time.perf_counter()
    trainer.fit(task, datamodule=data, ckpt_path=run.last if run.last.exists() else None, weights_only=True)
    seconds = time.perf_counter() - started
    trainer.save_checkpoint(run.last)
    if task.validated_at_step != trainer.global_step:
        validate(trainer, task, data)
        keep_if_best(config, run, trainer, task)
    run.update(
        metrics={"last": task.evaluation},
        steps=trainer.global_step,
        tokens_trained=int(task.tokens_trained),
        tokens_per_second=tokens_per_second(trainer),
        fit_seconds=seconds,
        peak_memory_gb=peak_memory_gb(trainer.strategy.root_device),
    )


def tokens_per_second(trainer: L.Trainer) -> float | None:
    """Predicted tokens over the seconds of training, of the whole run; None where the callback is switched off."""
    counts = [callback for callback in trainer.callbacks if isinstance(callback, Throughput)]
    return counts[0].total_tokens / counts[0].total_seconds if counts and counts[0].total_seconds else None


def keep_if_best(config: Config, run: RunFolder, trainer: L.Trainer, task: CausalLM) -> None:
    """What ModelCheckpoint does at a validation inside `fit`, for the one after it."""
    kept = next(callback for callback in trainer.checkpoint_callbacks if callback.filename == "best")
    value, best = task.evaluation[config.task.monitor], kept.best_model_score
    if best is None or (value < best if config.task.mode == "min" else value > best):
        trainer.save_checkpoint(run.best, weights_only=True)


def log_hyperparameters(trainer: L.Trainer, run: RunFolder, metrics: dict[str, float]) -> None:
    """One row of TensorBoard's HPARAMS tab: every setting, with the metrics of best.ckpt."""
    settings = {
        key: value for key, value in read_config(run.path).items() if key not in ("callbacks", "logger", "paths")
    }
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            final = {name.replace("val/", "best/"): value for name, value in metrics.items()}
            logger.log_hyperparams(settings, final, step=trainer.global_step)
            logger.finalize("success")


def _export(prepared: Prepared, run: RunFolder, data: TextDataModule, task: CausalLM) -> None:
    probe = data.datasets["val"].window(0)["input_ids"][None]
    export(task.model, data.tokenizer, run.export, model_card(prepared.config, run), probe)
