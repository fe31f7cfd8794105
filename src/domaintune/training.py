"""A prepared config -> a trained model (build, measure, fit, measure again, export, record), or its measure alone."""

import sys
import time
from dataclasses import asdict
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger

from domaintune.callbacks.compilation import Compilation, check_compiler
from domaintune.callbacks.samples import Samples
from domaintune.callbacks.throughput import Throughput
from domaintune.config import Config, UsageError
from domaintune.data.datamodule import TextDataModule
from domaintune.exporting import export
from domaintune.hardware import device_type, resolve_precision
from domaintune.memory import keep_freed_memory, peak_memory_gb
from domaintune.models.attention import check_isolation, isolate_documents
from domaintune.models.loading import load_causal_lm, load_tokenizer
from domaintune.preparing import Prepared
from domaintune.recording import RunFolder, read_config
from domaintune.reporting import model_card, print_plan, print_result
from domaintune.tasks.causal_lm import CausalLM, model_inputs
from domaintune.trainers import build_trainer, interruptible, make_trainer, quiet_libraries


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
    if config.model.compile:
        check_compiler(trainer.strategy.root_device)
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


def build(prepared: Prepared, trainer: L.Trainer) -> tuple[TextDataModule, CausalLM]:
    """The encoded data and the task around the loaded model."""
    config = prepared.config
    tokenizer = load_tokenizer(prepared.checkpoint)
    data = TextDataModule(config.data, prepared.splits, tokenizer, config.seed, config.paths.cache)
    dtype = torch.bfloat16 if trainer.precision == "bf16-true" else torch.float32
    model = load_causal_lm(prepared.checkpoint, config.model, dtype, config.seed)
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        raise UsageError(f"{prepared.checkpoint.name}: its tokenizer has more tokens than its model has embeddings")
    compile_for = (config.data.batch_size, config.data.block_size) if config.model.compile else None
    task = CausalLM(model, config.optim, config.scheduler, compile_for)
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
        fit_seconds=seconds,
        peak_memory_gb=peak_memory_gb(trainer.strategy.root_device),
        **speed(trainer),
    )


def speed(trainer: L.Trainer) -> dict[str, Any]:
    """What the run's callbacks know of its speed; None what isn't known or was switched off."""
    counted = next((callback for callback in trainer.callbacks if isinstance(callback, Throughput)), None)
    rate = counted.tokens_per_second if counted else None
    compiled = next((callback for callback in trainer.callbacks if isinstance(callback, Compilation)), None)
    return {
        "tokens_per_second": rate,
        "mfu": counted.mfu(rate, trainer.world_size) if counted and rate else None,
        "peak": asdict(counted.peak) if counted and counted.peak else None,
        "compilation": compiled.report if compiled else None,
    }


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
