"""A prepared config -> a trained model (build, measure, fit, measure again, export, record), or its measure alone."""

import hashlib
import shlex
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from transformers import PreTrainedModel

from domaintune.callbacks.compilation import Compilation, check_compiler
from domaintune.callbacks.isolation import IsolationProbe
from domaintune.callbacks.samples import Samples
from domaintune.callbacks.stopping import StopOnSignal
from domaintune.callbacks.throughput import Throughput
from domaintune.config.checks import MEASURED
from domaintune.config.comparison import deciding
from domaintune.config.composing import default_config
from domaintune.config.schema import Config
from domaintune.data.datamodule import EncodedDataModule
from domaintune.data.splitting import Splits
from domaintune.data.tokenizing import tokenizer_sha256
from domaintune.data.unigram import unigram_loss
from domaintune.errors import RunError, UsageError
from domaintune.files.writing import checksum_file, is_whole, write_arrays
from domaintune.kernels.attention import check_isolation, isolate_documents, make_masks_unasked
from domaintune.kernels.hardware import device_type, resolve_precision
from domaintune.kernels.memory import keep_freed_memory, peak_memory_gb
from domaintune.models.exporting import export, rehearse_export
from domaintune.models.families import check_vocabulary
from domaintune.models.loading import load_model, load_tokenizer, tokens_of
from domaintune.models.parts import freeze, head_parameters, hold_frozen_in
from domaintune.models.sharding import is_sharded, load_whole
from domaintune.preparing import Prepared, may_resize
from domaintune.runs.console import keep_output
from domaintune.runs.folder import RunFolder, optional, read_config, say
from domaintune.runs.outcomes import trial_overrides, varied_settings
from domaintune.runs.ranks import is_first_process
from domaintune.runs.report import model_card, print_plan, print_result, schedule
from domaintune.tasks.base import FineTuningTask, task_class
from domaintune.tasks.causal_lm import CausalLM, model_inputs
from domaintune.trainers import build_trainer, interruptible, make_trainer, quiet_libraries, scale_for_sums

SHOWN_SETTINGS = ("model.checkpoint", "optim.lr", "data.batch_size", "data.block_size", "trainer.max_steps", "seed")
# TensorBoard's CUSTOM SCALARS tab: what one looks at, each in one chart.
CUSTOM_SCALARS = {
    "training": {
        "loss": ["Multiline", ["train/loss", "val/loss"]],
        "learning rate": ["Multiline", ["lr"]],
        "gradient norm": ["Multiline", ["train/grad_norm"]],
        "tokens a second": ["Multiline", ["train/tokens_per_second"]],
        "memory, GB": ["Multiline", ["train/peak_memory_gb"]],
    }
}


def train(prepared: Prepared, run: RunFolder) -> float:
    """Trains, and goes on from last.ckpt where the run's folder has one.

    Returns:
        the monitored metric of best.ckpt.
    """
    if is_first_process():
        with optional("what is printed is not kept"):
            keep_output(run.output)
    with run.recording():
        metric = _train(prepared, run)
    if is_first_process():  # what goes wrong from here on leaves the run finished
        if prepared.config.checkpoint.keep == "best":
            with optional("what only training goes on from is kept"), run.locked():
                for file in run.only_for_training():
                    file.unlink()
        print_result(run)
    return metric


def _train(prepared: Prepared, run: RunFolder) -> float:
    started, config = time.perf_counter(), prepared.config
    quiet_libraries()
    L.seed_everything(config.seed, workers=True, verbose=False)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    trainer = build_trainer(config, run)
    stop = next(callback for callback in trainer.callbacks if isinstance(callback, StopOnSignal))
    with stop.handling():
        if config.model.compile:
            check_compiler(trainer.strategy.root_device)
        data, task = build(prepared, trainer)
        scale_for_sums(trainer, data.labels_of_a_batch())
        if trainer.is_global_zero:
            rehearse_export(task.model, data.tokenizer, data.probe(), task.head, prepared.checkpoint.name, run.path)
        describe(prepared, run, trainer, data, task)
        if config.model.frozen_dtype != "float32":
            if trainer.precision != "bf16-mixed":
                raise UsageError(
                    f"model.frozen_dtype={config.model.frozen_dtype}: needs trainer.precision=bf16-mixed, and this run "
                    f"has {trainer.precision}"
                )
            hold_frozen_in(task.model, getattr(torch, config.model.frozen_dtype))
        with interruptible(trainer):
            _measure_and_fit(config, run, trainer, task, data)
        after = run.result["metrics"]["after"]
        run.update(seconds=time.perf_counter() - started)
        if trainer.is_global_zero:
            with optional("the hyperparameters could not be logged"):
                log_hyperparameters(trainer, run, after)
            _export(prepared, run, data, task)
    return float(after[config.task.monitor])


def _measure_and_fit(
    config: Config, run: RunFolder, trainer: L.Trainer, task: FineTuningTask, data: EncodedDataModule
) -> None:
    if "before" not in run.result.get("metrics", {}):
        run.update(metrics={"before": validate(trainer, task, data)}, samples={"before": sample_texts(trainer)})
    fit(config, run, trainer, task, data)
    if not is_whole(run.best):
        raise RunError(f"{run.best} was damaged while the run was training; fresh=true starts over")
    best = torch.load(run.best, weights_only=True, map_location="cpu", mmap=True)  # no second model on a GPU
    if best["global_step"] == task.validated_at_step:
        after, texts = run.result["metrics"]["last"], sample_texts(trainer)
    else:
        load_whole(task, best["state_dict"])
        loggers, trainer.loggers = trainer.loggers, []  # the curve ends with the last weights, not with the best
        after, texts = validate(trainer, task, data), sample_texts(trainer)
        trainer.loggers = loggers
    run.update(validation={"tokenizer": tokenizer_sha256(data.tokenizer, data.tokenizer.chat_template)})
    if isinstance(task, CausalLM):
        record_validation(run, data, task)
    else:
        run.update(validation={"sha256": data.measured_sha256("val", trainer.limit_val_batches)})
    run.update(metrics={"after": after}, samples={"after": texts}, best_step=int(best["global_step"]))


def record_validation(run: RunFolder, data: EncodedDataModule, task: CausalLM) -> None:
    """Keeps what the latest validation measured of each document, for comparing runs.

    Only runs with the same `validation.sha256` were measured on the same: it is of the documents, and, where
    `trainer.limit_val_batches` took a part, of how much of each.
    """
    documents = data.by_document("val", task.of_windows)
    sides = [np.sort(documents["hash"], axis=0).tobytes()]
    if task.of_windows[:, 1].sum() != data.datasets["val"].predicted_tokens:
        sides.append(documents["tokens"].tobytes())
    run.update(
        validation={
            "documents": len(documents["loss"]),
            "sha256": hashlib.sha256(b"".join(sides)).hexdigest(),
        }
    )
    if is_first_process():
        write_arrays(run.validation, documents)


def evaluate(prepared: Prepared) -> tuple[dict[str, float], int, str, Splits]:
    """The metrics of a checkpoint on the test side of the documents, how many labels of what, and what was left out."""
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
    if getattr(task.model, "has_new_head", False):
        raise UsageError(f"{prepared.checkpoint.name} has no head for task={prepared.config.task.name} to be measured")
    with interruptible(trainer):
        trainer.test(task, datamodule=data, verbose=False)
    tested = data.datasets["test"]
    return task.evaluation, tested.predicted_tokens, tested.unit, data.splits


def build(prepared: Prepared, trainer: L.Trainer) -> tuple[EncodedDataModule, FineTuningTask]:
    """The encoded data and the task around the loaded model."""
    config = prepared.config
    data, model = load_data_and_model(prepared, torch.bfloat16 if trainer.precision == "bf16-true" else torch.float32)
    trained_on = prepared.trained_on
    if trained_on is None and data.labels is not None:
        trained_on = data.labels.counts["train"], len(data.splits.of("train"))
    data.trainer = trainer  # its device and its processes decide how batches are cut
    learnt = task_class(config.task)
    task = learnt.make(config, model, trained_on)
    learnt.check_model(model, data)
    if config.data.batching != "padded":
        if not config.model.gradient_checkpointing:  # there, time is given for memory
            keep_freed_memory()  # rows of one length make tensors of the same sizes at every step
        isolate_documents(model)
        if (example := data.packed_example()) is not None:
            check_isolation(model, model_inputs(example))  # told at once, and also where weights are to be split
            callbacks: Any = trainer.callbacks
            callbacks.insert(0, IsolationProbe(model_inputs(example)))
    if trainer.strategy.root_device.type == "cuda":
        make_masks_unasked()
    return data, task


def build_model(prepared: Prepared, dtype: torch.dtype, tokens: int, **labels: Any) -> PreTrainedModel:
    """The loaded model with its adapters, where it is to have some; what is not to be trained is frozen.

    Args:
        tokens: of the tokenizer.
        labels: what of the model's config the data decides; see `load_model`.
    """
    config = prepared.config
    head = task_class(config.task).head
    model = load_model(prepared.checkpoint, config.model, head, dtype, config.seed, tokens, **labels)
    if config.peft.name == "lora":
        from domaintune.models.adapters import add_adapters  # peft takes seconds to import

        add_adapters(
            model,
            config.peft,
            config.seed,
            train_head=head.is_new,
            base=prepared.checkpoint.place(),
            peft_type=head.peft_type,
        )
    if config.model.freeze:
        freeze(model, config.model.freeze)
    if config.optim.head_lr is not None and not any(head.requires_grad for head in head_parameters(model).values()):
        raise UsageError(f"optim.head_lr: of {prepared.checkpoint.name} no head is trained that is its own")
    return model


def load_data_and_model(prepared: Prepared, dtype: torch.dtype) -> tuple[EncodedDataModule, PreTrainedModel]:
    """The encoded data, and the model with a head for it."""
    config, checkpoint, splits = prepared.config, prepared.checkpoint, prepared.splits
    task = task_class(config.task)
    tokenizer = load_tokenizer(checkpoint, task.head)
    tokens = tokens_of(tokenizer)
    check_vocabulary(checkpoint, tokens, may_resize(config))
    data = task.make_data(config, splits, prepared.labels, tokenizer)
    model = build_model(prepared, dtype, tokens, **task.label_settings(data.labels))
    task.prepare_model(model, tokenizer, config)
    return data, model


def describe(
    prepared: Prepared, run: RunFolder, trainer: L.Trainer, data: EncodedDataModule, task: FineTuningTask
) -> None:
    """Records and prints what is about to happen, with the derived numbers."""
    checkpoint = prepared.checkpoint
    account = data.account()
    check_same_data(run, account)
    for key in ("blank_left_out", "blank_places"):  # of a result of an earlier version
        run.result.get("data", {}).pop(key, None)
    run.update(
        weights={
            "checkpoint": checkpoint.name,
            "found": checkpoint.found,
            "init": prepared.config.model.init,
            "new_head": getattr(task.model, "has_new_head", False),
            "parameters": sum(parameter.numel() for parameter in task.model.parameters()),
            "trained_parameters": sum(weight.numel() for weight in task.model.parameters() if weight.requires_grad),
        },
        data=account,
    )
    for note in data.notes():
        say(f"note: {note}")
    for logger in trainer.loggers if trainer.is_global_zero else ():
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_custom_scalars(CUSTOM_SCALARS)
    if isinstance(task, CausalLM) and prepared.config.data.batching != "concatenated":
        limit, batches = trainer.limit_val_batches, len(data.val_dataloader())
        if limit >= batches if isinstance(limit, int) else limit == 1:  # validation has all documents
            known = task.model.get_input_embeddings().num_embeddings
            run.update(unigram={"val/loss": unigram_loss(data.datasets["train"], data.datasets["val"], known)})
    run.update(schedule=schedule(prepared.config, run.result["data"]["train"]["batches"], trainer.world_size))
    if trainer.is_global_zero:
        print_plan(prepared.config, run, trainer.world_size)


def check_same_data(run: RunFolder, account: dict[str, Any]) -> None:
    """Raises UsageError where a resumed run would go on with other tokens or classes of the same texts.

    Another version of this program, or of the tokenizer, may read the same texts otherwise. A head is for its classes
    in their order, and the place in the data is counted in batches.
    """
    earlier = run.result.get("data", {})
    if run.resume_from is None:
        return
    for side in ("train", "val"):
        before, after = earlier.get(side, {}), account[side]
        for what in ("documents", "tokens", "batches", "classes"):
            if what not in before or what not in after:
                continue
            old, new = (list(each[what]) if what == "classes" else each[what] for each in (before, after))
            if old != new:
                raise UsageError(
                    f"{run.path} was made from the same texts in another way: {what} of the {side} side were {old}, "
                    f"and are {new} now. Take another name, or fresh=true to start over"
                )


def validate(trainer: L.Trainer, task: FineTuningTask, data: EncodedDataModule) -> dict[str, float]:
    """The validation metrics of the weights in memory."""
    trainer.validate(task, datamodule=data, verbose=False)
    return task.evaluation


def sample_texts(trainer: L.Trainer) -> dict[str, str]:
    """{prompt: continuation} of the latest validation; empty where the callback is switched off."""
    return next((dict(cb.texts) for cb in trainer.callbacks if isinstance(cb, Samples)), {})


def fit(config: Config, run: RunFolder, trainer: L.Trainer, task: FineTuningTask, data: EncodedDataModule) -> None:
    """Trains to the end and sees to it that the last weights were validated too, and kept where they are the best."""
    started = time.perf_counter()
    trainer.fit(task, datamodule=data, ckpt_path=run.resume_from, weights_only=True)
    seconds = time.perf_counter() - started
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


def keep_if_best(config: Config, run: RunFolder, trainer: L.Trainer, task: FineTuningTask) -> None:
    """What ModelCheckpoint does at a validation inside `fit`, for the one after it."""
    kept = next(callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint))
    value, best = task.evaluation[config.task.monitor], kept.best_model_score
    if best is None or (value < best if config.task.mode == "min" else value > best):
        trainer.save_checkpoint(run.best, weights_only=True)


def log_hyperparameters(trainer: L.Trainer, run: RunFolder, metrics: dict[str, float]) -> None:
    """One row of TensorBoard's HPARAMS tab, with the metrics of best.ckpt.

    Of a sweep's trial what varies; of a run of its own what was typed, what else is not as a run without any settings
    has it, and the settings that matter most. All of them would be a hundred columns.
    """
    overrides, config = trial_overrides(run.path), read_config(run.path)
    if overrides is None:
        typed = [each for each in shlex.split(run.result["command"])[2:] if "=" in each]
        plain = {key: value for key, value in deciding(config).items() if not isinstance(value, dict | list)}
        usual = deciding(asdict(default_config()))
        other = [key for key, value in plain.items() if value != usual.get(key)]
        overrides = [*(f"{key}=" for key in (*SHOWN_SETTINGS, *other)), *typed]
    settings = varied_settings(config, overrides)
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            # Beside the curves of validation; a group of its own would stand before all curves.
            final = {name.replace("val/", "val/best_"): value for name, value in metrics.items()}
            logger.log_hyperparams(settings, final, step=trainer.global_step)
            logger.finalize("success")


def _export(prepared: Prepared, run: RunFolder, data: EncodedDataModule, task: FineTuningTask) -> None:
    model = load_best(prepared, run)[1] if is_sharded(task) else task.model
    if prepared.config.model.frozen_dtype != "float32":
        model = model.cpu().float()  # where the device had no room for it in fp32
    _write_export(prepared, run, data, model, run.export)


def export_unfinished(prepared: Prepared, run: RunFolder, folder: Path) -> None:
    """Exports the best weights so far of a run that has not finished."""
    quiet_libraries()
    run.result = run.earlier() or {}
    if run.result.get("status") != "finished":  # what an earlier end has left, where the run goes on from there
        for key in ("steps", "tokens_trained"):
            run.result.pop(key, None)
        run.result["metrics"] = {"before": run.result["metrics"]["before"]}
    data, model = load_best(prepared, run)
    _write_export(prepared, run, data, model, folder)


def load_best(prepared: Prepared, run: RunFolder) -> tuple[EncodedDataModule, PreTrainedModel]:
    """The encoded data, and the model with the weights of best.ckpt."""
    data, model = load_data_and_model(prepared, torch.float32)
    weights = torch.load(run.best, weights_only=True, mmap=True, map_location="cpu")["state_dict"]
    trained = {name.removeprefix("model."): weight for name, weight in weights.items()}
    frozen = {name for name, weight in model.named_parameters() if not weight.requires_grad}
    model.load_state_dict(trained, strict=not frozen)
    if prepared.config.model.frozen_dtype != "float32":  # it was trained over weights that are rounded so
        hold_frozen_in(model, getattr(torch, prepared.config.model.frozen_dtype))
    return data, model.float()


def _write_export(
    prepared: Prepared, run: RunFolder, data: EncodedDataModule, model: PreTrainedModel, folder: Path
) -> None:
    config = prepared.config
    notes: dict[str, Any] = {"best_sha256": checksum_file(run.best).read_text(encoding="utf-8").split()[0]}
    for name in MEASURED:
        if (rate := getattr(config.model, name).get(config.model.checkpoint)) is not None:
            notes[name] = rate
    export(model, data.tokenizer, folder, model_card(config, run), data.probe(), task_class(config.task).head, notes)
