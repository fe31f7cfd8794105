"""The gradient of one global batch and the loss of a validation, cut up in every way."""

import argparse
import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import torch

from domaintune.certifying.small import settings
from domaintune.config.composing import default_config
from domaintune.models.loading import load_model
from domaintune.preparing import Prepared, prepare
from domaintune.runs.folder import RunFolder
from domaintune.runs.ranks import is_first_process
from domaintune.tasks.causal_lm import CausalLM
from domaintune.trainers import build_trainer, quiet_libraries
from domaintune.training import build

DOCUMENTS = 16  # of the global batch
GRADIENT_TOLERANCE, LOSS_TOLERANCE = 1e-5, 1e-6  # relative
PROCESSES = (1, 2)
BATCHINGS = ("packed", "padded")
VALIDATION_BATCH_SIZES = (1, 3, 8)


def certify_gradients(given: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Rows of the table; the cases of two processes are computed by two processes."""
    rows = []
    for processes in given.processes or PROCESSES:
        command = [
            sys.executable,
            "-m",
            "domaintune.cli.certify",
            "gradients",
            "--folder",
            str(folder),
            "--shape",
            given.shape,
        ]
        done = subprocess.run(
            [*command, "--worker", str(processes), "--micro", *map(str, given.micro)],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        rows += [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"')]
    return rows


def gradients(given: argparse.Namespace, folder: Path) -> None:
    """Prints a row for each case of `given.worker` processes, of which this is one."""
    torch.set_num_threads(1)
    quiet_libraries()
    wanted = gradient_by_hand(prepare_case(given.shape, folder, "padded", 1, 1, 1))
    for batching, micro in itertools.product(BATCHINGS, given.micro):
        whole = -(-DOCUMENTS // (micro * given.worker))
        for accumulate in sorted({whole, DOCUMENTS + 3}):  # the second: a window that the epoch cuts short
            prepared = prepare_case(given.shape, folder, batching, micro, accumulate, given.worker)
            got = gradient(prepared, RunFolder(folder / "runs" / "gradient"))
            case = {"batching": batching, "micro_batch": micro, "accumulate": accumulate, "processes": given.worker}
            difference = float((got - wanted).norm() / wanted.norm())
            if is_first_process():
                print(json.dumps({**case, "difference": difference, "right": difference <= GRADIENT_TOLERANCE}))


def prepare_case(shape: str, folder: Path, batching: str, micro: int, accumulate: int, processes: int) -> Prepared:
    config = default_config(
        "name=gradient",
        *settings(folder, shape),
        f"data.path={folder}/train.jsonl",
        f"data.val_path={folder}/val.jsonl",
        "data.val_fraction=0",
        "data.test_fraction=0",
        f"data.batching={batching}",
        f"data.batch_size={micro}",
        "trainer=ddp",
        "trainer.accelerator=cpu",
        f"trainer.devices={processes}",
        f"trainer.accumulate_grad_batches={accumulate}",
        "trainer.val_check_interval=1.0",
        "trainer.gradient_clip_val=null",
        "scheduler=constant",
        "optim.lr=1e-30",
    )
    config.callbacks = {"progress": config.callbacks["progress"]}
    config.trainer.limit_val_batches, config.trainer.max_epochs = 0, 1
    return prepare(config)


class KeepGradient(L.Callback):
    """Of the only optimizer step."""

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *_: Any) -> None:
        if trainer.global_step:
            assert trainer.global_step == 1
            self.gradient = flat(pl_module.model)


def gradient(prepared: Prepared, run: RunFolder) -> torch.Tensor:
    """By the program."""
    trainer, kept = build_trainer(prepared.config, run), KeepGradient()
    trainer.callbacks.insert(0, kept)
    data, task = build(prepared, trainer)
    trainer.fit(task, datamodule=data)
    return kept.gradient


def gradient_by_hand(prepared: Prepared) -> torch.Tensor:
    """A window at a time, without padding, by transformers' own loss: the mean over all predicted tokens."""
    config = prepared.config
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False)
    data, _ = build(prepared, trainer)
    model = load_model(prepared.checkpoint, config.model, CausalLM.head, torch.float32, config.seed)
    windows = data.datasets["train"]
    for index in range(len(windows)):
        ids = windows.window(index)["input_ids"][None]
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        (loss * (ids.shape[1] - 1) / windows.predicted_tokens).backward()
    return flat(model)


def flat(model: Any) -> torch.Tensor:
    return torch.cat([weight.grad.double().flatten() for weight in model.parameters()])


def certify_validation(given: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """Rows of the table: the same validation documents in batches of several sizes."""
    torch.set_num_threads(1)
    quiet_libraries()
    first = None
    for batching, batch_size in itertools.product(BATCHINGS, VALIDATION_BATCH_SIZES):
        prepared = prepare_case(given.shape, folder, batching, batch_size, 1, 1)
        prepared.config.trainer.limit_val_batches = 1.0
        trainer = build_trainer(prepared.config, RunFolder(folder / "runs" / "validation"))
        data, task = build(prepared, trainer)
        trainer.validate(task, datamodule=data, verbose=False)
        loss = task.evaluation["val/loss"]
        first = first or loss
        difference = abs(loss - first) / first
        case = {"batching": batching, "batch_size": batch_size, "val/loss": f"{loss:.9f}"}
        yield {**case, "difference": difference, "right": difference <= LOSS_TOLERANCE}
