"""Tokens a second of training: the loop that tutorials show, and this program.

Both train GPT-2 from random weights on the same documents (Python's documentation), batch size and learning rate:

classic     transformers' GPT2LMHeadModel with its defaults, fp32, rows in random order padded to the longest of their
            batch, its own loss, torch.optim.AdamW, a plain loop
domaintune  what `python train.py` runs, through Lightning, with this program's defaults

Counted are tokens of text that were predicted, never padding. The first steps of a process are not counted.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.memory import peak_memory_gb

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


def classic(given: argparse.Namespace) -> dict[str, float]:
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
    model = GPT2LMHeadModel(GPT2Config(**SHAPES[given.shape], bos_token_id=0, eos_token_id=0)).train()
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

    return rate(steps(), given.seconds)


def domaintune(given: argparse.Namespace) -> dict[str, float]:
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
            if trainer.global_step > WARM_UP_STEPS and elapsed >= given.seconds:
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
        GPT2Config(**SHAPES[given.shape], bos_token_id=0, eos_token_id=0).save_pretrained(folder)
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


METHODS = {"classic": classic, "domaintune": domaintune}
BASES = ("classic",)
