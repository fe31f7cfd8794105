"""Tokens a second of training: the ways that tutorials show, a bare loop with this program's parts, and this program.

All train GPT-2 from random weights on the same documents of log-normal length (median 86 tokens, mean 136, at most
1500), with the same batch size and learning rate, each round from another seed:

classic                  transformers' GPT2LMHeadModel, fp32, a document a row, cut at 512 tokens (--block-size) and
                         padded to the longest of the batch; its own loss, torch.optim.AdamW, a plain loop
trainer_padded           the same batches and precision under Hugging Face's Trainer
trainer_blocks           Hugging Face's Trainer on documents joined and cut into blocks, in bf16 where the device has it
trainer_blocks_compiled  the same with torch_compile=True (with --compile)
bare                     this program's data, model and loss in a plain loop, with its optimizer and clipping
domaintune               what `python train.py` runs, through Lightning, with its callbacks and checkpoints
domaintune_checkpointing  the same with model.gradient_checkpointing=true: less memory, more arithmetic

Each keeps its own defaults, dropout among them; --dropout 0 takes it from all. --compile compiles the last three. Only
they keep documents from seeing each other in a row that holds several. Counted are tokens of text that were predicted,
never padding. The first three steps of a process are not counted. All but this program leave out the last batch of an
epoch where it isn't full.
"""

import argparse
import itertools
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.memory import peak_memory_gb

SHAPES = {
    "tiny": {"n_layer": 6, "n_embd": 256, "n_head": 4, "n_positions": 512, "vocab_size": 8192},
    "gpt2": {"n_layer": 12, "n_embd": 768, "n_head": 12, "n_positions": 1024, "vocab_size": 50257},
    "gpt2_medium": {"n_layer": 24, "n_embd": 1024, "n_head": 16, "n_positions": 1024, "vocab_size": 50257},
}
DROPOUTS = ("resid_pdrop", "embd_pdrop", "attn_pdrop")
BATCH_SIZE, LR = 8, 5e-5
WARM_UP_STEPS, FEWEST_STEPS = 3, 4  # not counted; and counted at least: batches of a document a row differ widely


class Clock:
    """Counts tokens after the warm-up, until the time is over."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given, self.steps, self.tokens, self.seconds = given, 0, 0, 0.0
        self._started = 0.0

    def step(self, tokens: int) -> bool:
        """Called after each optimizer step with the tokens that it was for; whether the time is over."""
        self.steps += 1
        if self.steps == WARM_UP_STEPS:
            self._started = self._now()
        elif self.steps > WARM_UP_STEPS:
            self.tokens += tokens
        many = self.steps >= WARM_UP_STEPS + FEWEST_STEPS
        if not many or time.perf_counter() - self._started < self.given.seconds:
            return False
        self.seconds = self._now() - self._started
        return True

    def _now(self) -> float:
        """Waits for a GPU, which is asked at the start and the end alone: in between, a method goes ahead of it."""
        if self.given.device == "cuda":
            import torch

            torch.cuda.synchronize()
        return time.perf_counter()

    def result(self) -> dict[str, float]:
        return {"tokens_per_second": self.tokens / self.seconds, "peak_memory_gb": peak_memory_gb(self.given.device)}


def config_of(given: argparse.Namespace, folder: str, checkpointing: bool) -> Any:
    """This program's config, on a checkpoint folder that holds a shape and a tokenizer."""
    from transformers import GPT2Config

    from domaintune.arguments import default_config
    from domaintune.models.locating import ASSETS

    for file in (ASSETS / "gpt2_tiny").glob("tokenizer*"):
        (Path(folder) / file.name).write_bytes(file.read_bytes())
    GPT2Config(**SHAPES[given.shape], bos_token_id=0, eos_token_id=0).save_pretrained(folder)
    return default_config(
        "name=benchmark",
        f"model={'gpt2_tiny' if given.shape == 'tiny' else 'gpt2'}",
        f"model.checkpoint={folder}",
        "model.init=random",
        f"model.compile={given.compile}",
        f"model.gradient_checkpointing={checkpointing}",
        *([f"model.dropout={given.dropout}", f"model.attention_dropout={given.dropout}"] if given.dropout == 0 else []),
        f"data.path={given.corpus}",
        f"data.block_size={given.block_size}",
        f"data.batch_size={BATCH_SIZE}",
        f"seed={given.seed}",
        f"optim.lr={LR}",
        f"trainer={'gpu' if given.device == 'cuda' else 'cpu'}",
        "trainer.max_epochs=1000",
        f"paths.runs={folder}",
    )


@contextmanager
def prepared_run(given: argparse.Namespace, checkpointing: bool = False) -> Iterator[tuple[Any, Any]]:
    """What `train` is given: everything prepared, and the folder of a run."""
    from domaintune.preparing import prepare
    from domaintune.recording import RunFolder

    with tempfile.TemporaryDirectory() as folder:
        config = config_of(given, folder, checkpointing)
        config.trainer.limit_val_batches = 0
        yield prepare(config), RunFolder(Path(folder) / "run")


def documents_of(given: argparse.Namespace) -> list[Any]:
    """Token ids of each training document, with its end-of-text token: (T,) tensors."""
    import torch

    from domaintune.data.tokenizing import tokenize
    from domaintune.models.loading import load_tokenizer

    with prepared_run(given) as (prepared, _):
        splits = prepared.splits
        tokens = tokenize(splits.documents, load_tokenizer(prepared.checkpoint), "text", prepared.config.paths.cache)
        places = zip(*(tokens.starts[splits.of("train") + after].tolist() for after in (0, 1)), strict=True)
        return [torch.from_numpy(tokens.ids(first, end)).long() for first, end in places]


def plain_model(given: argparse.Namespace) -> Any:
    """transformers' own, with its own dropout unless that is taken from all."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(given.seed)
    dropout = dict.fromkeys(DROPOUTS, 0.0) if given.dropout == 0 else {}
    return GPT2LMHeadModel(GPT2Config(**SHAPES[given.shape], **dropout, bos_token_id=0, eos_token_id=0)).train()


def document_rows(given: argparse.Namespace) -> list[Any]:
    """A document a row, in the order in which both padded ways take them; full batches only."""
    import torch

    documents = documents_of(given)
    order = torch.randperm(len(documents), generator=torch.Generator().manual_seed(given.seed)).tolist()
    return [documents[i][: given.block_size] for i in order[: len(order) // BATCH_SIZE * BATCH_SIZE]]


def padded(rows: list[Any]) -> dict[str, Any]:
    import torch

    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}


def classic(given: argparse.Namespace) -> dict[str, float]:
    """The loop of the tutorials."""
    import torch

    rows = document_rows(given)
    model = plain_model(given).to(given.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)
    clock = Clock(given)
    while True:
        for first in range(0, len(rows), BATCH_SIZE):
            batch = padded(rows[first : first + BATCH_SIZE])
            model(**{name: tensor.to(given.device) for name, tensor in batch.items()}).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if clock.step(int((batch["labels"][:, 1:] != -100).sum())):
                return clock.result()


def trainer(given: argparse.Namespace, blocks: bool, compiled: bool = False) -> dict[str, float]:
    """Hugging Face's Trainer."""
    import torch
    from transformers import Trainer, TrainerCallback, TrainingArguments

    clock = Clock(given)

    class Ordered(Trainer):
        def _get_train_sampler(self, *dataset: Any) -> Any:
            return super()._get_train_sampler(*dataset) if blocks else torch.utils.data.SequentialSampler(rows)

    class Stop(TrainerCallback):
        def on_step_end(self, _args: Any, _state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop = clock.step(counted.popleft())

    def collate(rows: list[Any]) -> dict[str, Any]:
        batch = padded(rows)
        counted.append(int((batch["labels"][:, 1:] != -100).sum()))  # on the host; a batch is made ahead of its step
        return batch

    counted: deque[int] = deque()
    rows = list(torch.cat(documents_of(given)).split(given.block_size))[:-1] if blocks else document_rows(given)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            per_device_train_batch_size=BATCH_SIZE,
            learning_rate=LR,
            num_train_epochs=1000,
            seed=given.seed,
            dataloader_drop_last=True,
            bf16=blocks and computes_bf16(given.device),
            torch_compile=compiled,
            use_cpu=given.device == "cpu",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
        )
        Ordered(plain_model(given), arguments, collate, rows, callbacks=[Stop()]).train()
    return clock.result()


def computes_bf16(device: str) -> bool:
    """Whether a device has instructions for bf16, so that it is worth using."""
    from domaintune.hardware import resolve_precision

    return resolve_precision("auto", device)[0] == "bf16-mixed"


def bare(given: argparse.Namespace) -> dict[str, float]:
    """This program's parts, without Lightning."""
    import torch

    from domaintune.data.datamodule import TextDataModule
    from domaintune.losses.linear_cross_entropy import linear_cross_entropy
    from domaintune.memory import keep_freed_memory
    from domaintune.models.attention import isolate_documents
    from domaintune.models.loading import load_model, load_tokenizer
    from domaintune.optim.parameter_groups import parameter_groups

    with prepared_run(given) as (prepared, _):
        config = prepared.config
        data = TextDataModule(
            config.data, prepared.splits, load_tokenizer(prepared.checkpoint), config.seed, config.paths.cache
        )
        model = load_model(prepared.checkpoint, config.model, "causal_lm", torch.float32, config.seed).to(given.device)
    keep_freed_memory()
    isolate_documents(model)
    narrow = computes_bf16(given.device)
    body: Any = torch.compile(model.base_model.forward, dynamic=False) if given.compile else model.base_model
    optimizer = torch.optim.AdamW(parameter_groups(model, config.optim.weight_decay), lr=LR, fused=True)
    clock = Clock(given)
    for batch in itertools.chain.from_iterable(itertools.repeat(data.train_dataloader())):
        if len(batch["input_ids"]) < BATCH_SIZE:
            continue
        tensors: Any = {
            name: batch[name].to(given.device, non_blocking=True) for name in batch if name not in ("bytes", "tokens")
        }
        torch._dynamo.maybe_mark_dynamic(tensors["cu_seqlens"], 0)
        inputs = {name: tensors[name] for name in ("input_ids", "position_ids", "cu_seqlens")}
        with torch.autocast(given.device, torch.bfloat16, enabled=narrow):
            hidden = body(**inputs, use_cache=False).last_hidden_state.flatten(0, 1)[tensors["states"]]
            loss = linear_cross_entropy(hidden, model.lm_head.weight, tensors["targets"], drop=False)
        (loss / batch["tokens"]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.trainer.gradient_clip_val)
        optimizer.step()
        optimizer.zero_grad()
        if clock.step(batch["tokens"]):
            break
    return clock.result()


def domaintune(given: argparse.Namespace, checkpointing: bool = False) -> dict[str, float]:
    """This program as `train.py` calls it, but for the validations and the export."""
    import lightning as L

    from domaintune.callbacks.throughput import Throughput
    from domaintune.trainers import build_trainer, quiet_libraries
    from domaintune.training import build

    clock = Clock(given)

    class Stop(L.Callback):
        def on_train_batch_end(self, trainer: Any, _task: Any, _outputs: Any, batch: Any, *_: Any) -> None:
            trainer.should_stop = clock.step(batch["tokens"])

    quiet_libraries()
    with prepared_run(given, checkpointing) as (prepared, run):
        trainer = build_trainer(prepared.config, run)
        trainer.callbacks.append(Stop())
        data, task = build(prepared, trainer)
        trainer.fit(task, datamodule=data)
    counted = next(callback for callback in trainer.callbacks if isinstance(callback, Throughput))
    return {**clock.result(), "flops_per_token": counted.flops_per_token}


def product_rates(given: argparse.Namespace) -> dict[str, float]:
    """What the device multiplies, for the share of it that the methods reach."""
    import torch

    from domaintune.hardware import product_rate

    dtypes = {"bf16": torch.bfloat16, "fp32": torch.float32}
    return {name: product_rate(dtype, given.device, seconds=1.0) for name, dtype in dtypes.items()}


METHODS: dict[str, Callable[[argparse.Namespace], dict[str, float]]] = {
    "classic": classic,
    "trainer_padded": partial(trainer, blocks=False),
    "trainer_blocks": partial(trainer, blocks=True),
    "trainer_blocks_compiled": partial(trainer, blocks=True, compiled=True),
    "bare": bare,
    "domaintune": domaintune,
    "domaintune_checkpointing": partial(domaintune, checkpointing=True),
    "product_rates": product_rates,
}
