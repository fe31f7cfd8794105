"""Tokens a second and memory of this program against the loop that tutorials show, on this machine.

    python scripts/benchmark.py train --shape tiny
    python scripts/benchmark.py train --shape gpt2 --rounds 3 --seconds 60 --json result.json

Both train GPT-2 from random weights on the same documents (Python's documentation), batch size and learning rate:

classic     transformers' GPT2LMHeadModel with its defaults, fp32, rows in random order padded to the longest of their
            batch, its own loss, torch.optim.AdamW, a plain loop
domaintune  what `python train.py` runs, through Lightning, with this program's defaults

Each measurement is a process of its own; rounds alternate, so that a machine whose speed drifts drifts for both.
Counted are tokens of text that were predicted, never padding. The first steps of a process are not counted.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

SHAPES = {
    "tiny": {"n_layer": 6, "n_embd": 256, "n_head": 4, "n_positions": 512, "vocab_size": 8192},
    "gpt2": {"n_layer": 12, "n_embd": 768, "n_head": 12, "n_positions": 1024, "vocab_size": 50257},
}
BLOCK_SIZE, BATCH_SIZE, LR = 512, 8, 5e-5
WARM_UP_STEPS = 3


def rate(steps: Iterator[int], seconds: float) -> dict[str, float]:
    """Runs steps that yield their tokens until the time is over: tokens a second after the warm-up."""
    for _ in range(WARM_UP_STEPS):
        next(steps)
    started, tokens = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - started) < seconds:
        tokens += next(steps)
    return {"tokens_per_second": tokens / elapsed, "peak_memory_gb": peak_memory_gb()}


def peak_memory_gb() -> float:
    """Of this process. The program's own function would bring Lightning into the classic loop's memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9


def classic(shape: dict[str, int], seconds: float) -> dict[str, float]:
    """The loop of the tutorials."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from domaintune.arguments import default_config
    from domaintune.data.splitting import read_splits
    from domaintune.data.tokenizing import tokenize
    from domaintune.models.loading import load_tokenizer
    from domaintune.models.locating import locate

    torch.manual_seed(0)
    config = default_config()
    splits = read_splits(config.data, config.paths.cache)
    tokenizer = load_tokenizer(locate("embedded:gpt2_tiny", needs_weights=False))
    tokens = tokenize(splits.documents, tokenizer, "text", config.paths.cache)
    rows = [
        torch.from_numpy(tokens.ids(first, min(end, first + BLOCK_SIZE))).long()
        for first, end in zip(*(tokens.starts[splits.of("train") + after].tolist() for after in (0, 1)), strict=True)
    ]
    model = GPT2LMHeadModel(GPT2Config(**shape, bos_token_id=0, eos_token_id=0)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)

    def steps() -> Iterator[int]:
        while True:
            for batch in torch.randperm(len(rows)).split(BATCH_SIZE):
                chosen = [rows[i] for i in batch.tolist()]
                ids = torch.nn.utils.rnn.pad_sequence(chosen, batch_first=True)
                mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in chosen], batch_first=True)
                loss = model(input_ids=ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100)).loss
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                yield sum(len(row) - 1 for row in chosen)

    return rate(steps(), seconds)


def domaintune(shape: dict[str, int], seconds: float) -> dict[str, float]:
    """This program's data module and task under Lightning's Trainer, with the defaults of `train.py`."""
    import lightning as L
    from transformers import GPT2Config

    from domaintune.arguments import default_config
    from domaintune.data.splitting import read_splits
    from domaintune.models.locating import ASSETS, Checkpoint
    from domaintune.preparing import Prepared
    from domaintune.training import build, make_trainer, quiet_libraries, resolve_precision

    class Stop(L.Callback):
        """Ends training when the time after the warm-up is over, and keeps the account."""

        started, tokens_before = 0.0, 0
        result: dict[str, float]

        def on_train_batch_end(self, trainer: Any, task: Any, *_: Any) -> None:
            if trainer.global_step == WARM_UP_STEPS:
                self.started, self.tokens_before = time.perf_counter(), int(task.tokens_trained)
            elapsed = time.perf_counter() - self.started
            if trainer.global_step > WARM_UP_STEPS and elapsed >= seconds:
                self.result = {"tokens_per_second": (int(task.tokens_trained) - self.tokens_before) / elapsed}
                trainer.should_stop = True

    quiet_libraries()
    config = default_config()
    config.model.init = "random"
    config.data = replace(config.data, block_size=BLOCK_SIZE, batch_size=BATCH_SIZE)
    config.optim = replace(config.optim, lr=LR)
    precision, _ = resolve_precision("auto", "cpu")
    with tempfile.TemporaryDirectory() as folder:
        for file in (ASSETS / "gpt2_tiny").glob("tokenizer*"):
            (Path(folder) / file.name).write_bytes(file.read_bytes())
        GPT2Config(**shape, bos_token_id=0, eos_token_id=0).save_pretrained(folder)
        stop = Stop()
        trainer = make_trainer(
            accelerator="cpu",
            precision=precision,
            max_epochs=-1,
            limit_val_batches=0,
            gradient_clip_val=config.trainer.gradient_clip_val,
            callbacks=[stop],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
        )
        data, task = build(
            Prepared(config, read_splits(config.data, config.paths.cache), Checkpoint("shape", Path(folder), "here")),
            trainer,
        )
        trainer.fit(task, datamodule=data)
    return {**stop.result, "peak_memory_gb": peak_memory_gb()}


METHODS: dict[str, Callable[[dict[str, int], float], dict[str, float]]] = {
    "classic": classic,
    "domaintune": domaintune,
}


def train(arguments: argparse.Namespace) -> None:
    """Alternates the methods and prints medians, ranges and the ratio."""
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in METHODS}
    for number in range(arguments.rounds):
        for name in METHODS:
            command = [sys.executable, __file__, "one", name, "--shape", arguments.shape]
            command += ["--seconds", str(arguments.seconds)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{name} failed:\n{done.stderr}")
            measured[name].append(json.loads(done.stdout.splitlines()[-1]))
            print(f"round {number + 1}: {name} {measured[name][-1]['tokens_per_second']:,.0f} tokens/s", flush=True)
    show(measured, arguments.shape)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps({"shape": arguments.shape, "measured": measured}, indent=2) + "\n")


def show(measured: dict[str, list[dict[str, float]]], shape: str) -> None:
    """A row per method; the ratio is the median of the rounds' own ratios."""
    table = Table(f"shape {shape}", "tokens/s", "min", "max", "peak GB", "against classic")
    base = [run["tokens_per_second"] for run in measured["classic"]]
    for name, runs in measured.items():
        rates = [run["tokens_per_second"] for run in runs]
        ratio = statistics.median(mine / classic for mine, classic in zip(rates, base, strict=True))
        memory = max(run["peak_memory_gb"] for run in runs)
        figures = [f"{value:,.0f}" for value in (statistics.median(rates), min(rates), max(rates))]
        table.add_row(name, *figures, f"{memory:.2f}", f"{ratio:.2f} x")
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="train")
    compare = commands.add_parser("train", help="training: the classic loop and this program")
    one = commands.add_parser("one")  # a measurement in a process of its own
    one.add_argument("method", choices=METHODS)
    for command in (compare, one):
        command.add_argument("--shape", choices=SHAPES, default="tiny")
        command.add_argument("--seconds", type=float, default=20, help="of each measurement (default 20)")
    compare.add_argument("--rounds", type=int, default=3)
    compare.add_argument("--json", metavar="PATH", help="write every measurement there")
    compare.set_defaults(run=train)
    one.set_defaults(run=lambda given: print(json.dumps(METHODS[given.method](SHAPES[given.shape], given.seconds))))
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
