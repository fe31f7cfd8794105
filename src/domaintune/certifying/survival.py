"""Runs that are killed and started again, against the same runs left alone."""

import argparse
import hashlib
import itertools
import json
import logging
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L

from domaintune.certifying.small import settings
from domaintune.runs import checkpoints

STEPS = 24
WHEN = "CERTIFY_KILL"
# Where a run is killed, and how often such a moment passes unharmed: batches of a validation, writes of a checkpoint.
MOMENTS = {"forward": 1, "backward": 1, "step": 1, "validation": 5, "saving": 80, "any": 1}
SETTINGS = [
    {"data.num_workers": workers, "trainer.accumulate_grad_batches": accumulate, "data.batching": batching}
    for workers, accumulate, batching in itertools.product((0, 2), (1, 4), ("packed", "padded"))
]


class Killer(L.Callback):
    """Sends its own process SIGKILL at a moment of a kind after an optimizer step; `any`: a random time after that.

    The environment says when, since a run that goes on has the config that it had.
    """

    def __init__(self) -> None:
        self.moment, step, number = os.environ.get(WHEN, "never 0 0").split()
        self.step, self.left = int(step), int(number)

    def _reached(self, moment: str) -> None:
        if moment != self.moment or self.trainer.global_step < self.step:
            return
        self.left -= 1
        if self.left < 0:
            delay = random.SystemRandom().uniform(0, 0.3) if moment == "any" else 0
            if delay:
                threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
            else:
                os.kill(os.getpid(), signal.SIGKILL)

    def on_train_start(self, trainer: L.Trainer, *_: Any) -> None:
        self.trainer = trainer
        write = checkpoints._Hashing.write

        def counted(file: Any, part: Any) -> int:
            written = write(file, part)
            self._reached("saving")
            return written

        setattr(checkpoints._Hashing, "write", counted)  # noqa: B010

    def on_train_batch_start(self, *_: Any) -> None:
        self._reached("forward")

    def on_after_backward(self, *_: Any) -> None:
        self._reached("backward")

    def on_before_zero_grad(self, *_: Any) -> None:
        self._reached("step")

    def on_validation_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.state.fn == "fit":
            self._reached("validation")

    def on_train_batch_end(self, *_: Any) -> None:
        self._reached("any")


def certify_resume(given: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """Rows of the table: for each kind of run its kills and the hashes of what it and its unbroken twin end with."""
    draw = random.Random(given.seed)
    chosen = SETTINGS[:: max(1, len(SETTINGS) // given.kills)] if given.kills < len(SETTINGS) else SETTINGS
    kills = [given.kills // len(chosen) + (number < given.kills % len(chosen)) for number in range(len(chosen))]
    moments = itertools.cycle(draw.sample(list(MOMENTS), len(MOMENTS)))
    for number, (setting, wanted) in enumerate(zip(chosen, kills, strict=True)):
        name = f"run{number}"
        assert train(given.shape, folder, f"{name}-unbroken", setting) == 0
        happened = []
        for step in sorted(draw.sample(range(STEPS), wanted)):
            moment = next(moments)
            place = draw.randrange(MOMENTS[moment])
            status = train(given.shape, folder, name, setting, f"{moment} {step} {place}")
            assert status == -signal.SIGKILL, f"{name} ended with {status}"
            happened.append(f"{moment} {step}" + (f".{place}" if place else ""))
        assert train(given.shape, folder, name, setting) == 0
        unbroken, killed = (hashes(folder / "runs" / run) for run in (f"{name}-unbroken", name))
        words = " ".join(f"{key.split('.')[1]}={value}" for key, value in setting.items())
        yield {
            "run": words,
            "killed at": ", ".join(happened),
            "unbroken": short(unbroken),
            "killed": short(killed),
            "right": unbroken == killed,
        }


def train(shape: str, folder: Path, name: str, setting: dict[str, Any], kill: str | None = None) -> int:
    """Runs train in a process of its own; its exit status, negative for a signal.

    Args:
        kill: the moment, the step and how many such moments pass unharmed; None lets it end.
    """
    arguments = [
        f"name={name}",
        *settings(folder, shape, dropout=0.1),
        f"data.path={folder}/more.jsonl",
        "trainer=cpu",
        "data.batch_size=2",
        "optim.lr=1e-3",
        "callbacks=early_stopping",
        "callbacks.samples.max_new_tokens=4",
        f"trainer.max_steps={STEPS}",
        "trainer.max_epochs=-1",
        "trainer.val_check_interval=12",
        "trainer.log_every_n_steps=1",
        "checkpoint.every_steps=3",
        *(f"{key}={value}" for key, value in setting.items()),
        "+callbacks.killer={_target_: domaintune.certifying.survival.Killer}",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment |= {WHEN: kill} if kill else {}
    command = [sys.executable, "-m", "domaintune", "train", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode > 0:
        print(done.stdout, done.stderr, file=sys.stderr)
    return done.returncode


def hashes(run: Path) -> dict[str, str]:
    """SHA-256 of the weights and moments that a run ends with, of its best weights, its curves and its metrics."""
    import torch
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    last, best = (torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True) for name in ("last", "best"))
    # That it leaves out what was drawn twice is what is wanted.
    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    curves = {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in ("train/loss", "train/grad_norm", "lr", "val/loss")
    }
    metrics = json.loads((run / "result.json").read_text())["metrics"]
    return {
        "weights": sha256(last["state_dict"]),
        "optimizer": sha256(last["optimizer_states"]),
        "best": sha256(best["state_dict"]),
        "curves": sha256(curves),
        "metrics": sha256(metrics),
    }


def sha256(content: Any) -> str:
    """Of tensors and plain containers."""
    import torch

    digest = hashlib.sha256()

    def add(node: Any) -> None:
        if isinstance(node, dict):
            for key in sorted(node, key=str):
                digest.update(str(key).encode())
                add(node[key])
        elif isinstance(node, list | tuple):
            for item in node:
                add(item)
        else:
            digest.update(node.numpy().tobytes() if isinstance(node, torch.Tensor) else repr(node).encode())

    add(content)
    return digest.hexdigest()


def short(found: dict[str, str]) -> str:
    return " ".join(f"{name} {digest[:6]}" for name, digest in found.items())
