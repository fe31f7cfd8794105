"""Tokens a second of training: the ways that tutorials show, fast baselines, and this program.

All train GPT-2 from random weights on the same documents, with the same batch size and learning rate, each round from
another seed. The documents are of log-normal length (median 86 tokens, mean 136, at most 1500), or, with --documents
full, of 8 blocks each, so that nearly every row is one window of one document:

classic                  transformers' GPT2LMHeadModel, a document a row, cut at 512 tokens (--block-size) and padded to
                         the longest of the batch; its own loss, torch.optim.AdamW, a plain loop; fp32 on a CPU, bf16 on
                         a GPU that has it
nanogpt                  what nanoGPT's train.py does on one GPU, with transformers' GPT2LMHeadModel: documents joined
                         and cut into blocks, causal SDPA without a mask, bf16 where the device has it, TF32, fused
                         AdamW (betas 0.9 and 0.95, decay of matrices alone), clipping, pinned batches fetched while the
                         GPU computes, a vocabulary rounded up to a multiple of 64; --compile compiles model and loss as
                         one. No dropout, which is its own default
trainer_padded           the batches and the precision of `classic` under Hugging Face's Trainer
trainer_blocks           Hugging Face's Trainer on documents joined and cut into blocks, in bf16 where the device has it
trainer_blocks_compiled  the same with torch_compile=True (with --compile)
trl                      TRL's SFTTrainer with packing, in bf16 where the device has it, without gradient checkpointing,
                         and with torch_compile=True under --compile. Its strategy is "wrapped", rows that are cut
                         without a look at documents: the default, "bfd", makes one row of a batch, which only the
                         package flash-attn keeps from costing its square, and drops what is longer than a row. Its own
                         loss computes logits in chunks; Liger (0.8.5) has nothing for GPT-2, so that use_liger_kernel
                         would change nothing. Left out where TRL isn't installed
bare                     this program's data, model and loss in a plain loop, with its optimizer and clipping
domaintune               what `python train.py` runs, through Lightning, with its callbacks and checkpoints
domaintune_compiled      the same with model.compile=true (with --compile)
domaintune_checkpointing  with model.gradient_checkpointing=true: less memory, more arithmetic

Each keeps its own defaults, dropout among them; --dropout 0 takes it from all. --compile compiles `bare` and
`domaintune_checkpointing` too. Only the last four keep documents from seeing each other in a row that holds several.
Counted are tokens of text that were predicted, never padding. The first steps of a process, 3 on a CPU and 10 on a GPU,
are not counted. `bare` leaves out the last batch of an epoch where it isn't full, and so do `classic` and the trainers.
MFU is the share of the data sheet's bf16 rate, for the arithmetic of a token in this program.
"""

import argparse
import importlib
import itertools
import os
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.data import embedded_tokenizer
from benchmarks.memory import peak_memory_gb

SHAPES = {
    "tiny": {"n_layer": 6, "n_embd": 256, "n_head": 4, "n_positions": 512, "vocab_size": 8192},
    "gpt2": {"n_layer": 12, "n_embd": 768, "n_head": 12, "n_positions": 1024, "vocab_size": 50257},
    "gpt2_medium": {"n_layer": 24, "n_embd": 1024, "n_head": 16, "n_positions": 1024, "vocab_size": 50257},
}
DROPOUTS = ("resid_pdrop", "embd_pdrop", "attn_pdrop")
LR = 5e-5
WARM_UP_STEPS = {"cpu": 3, "cuda": 10}  # not counted
FEWEST_STEPS = 4  # of a stretch: batches of a document a row differ widely


class Clock:
    """Counts tokens after the warm-up, in consecutive stretches of so many seconds."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.rates: list[float] = []  # tokens a second of each stretch
        self._steps, self._tokens, self._started = -WARM_UP_STEPS[given.device], 0, 0.0

    def step(self, tokens: int) -> bool:
        """Called after each optimizer step with the tokens that it was for; whether all stretches are over."""
        self._steps += 1
        self._tokens += tokens
        if self._steps == 0:  # the warm-up is over
            self._begin(self._now())
        elif self._steps >= FEWEST_STEPS and time.perf_counter() - self._started >= self.given.seconds:
            now = self._now()
            self.rates.append(self._tokens / (now - self._started))
            self._begin(now)
        return len(self.rates) >= self.given.repeats

    def _begin(self, now: float) -> None:
        self._steps, self._tokens, self._started = 0, 0, now

    def _now(self) -> float:
        """Waits for a GPU, which is asked between stretches alone: within one, a method goes ahead of it."""
        if self.given.device == "cuda":
            import torch

            torch.cuda.synchronize()
        return time.perf_counter()

    def result(self) -> dict[str, Any]:
        memory = peak_memory_gb(self.given.device)
        from domaintune.kernels.hardware import machine

        device = machine(self.given.device)
        rate = statistics.median(self.rates)
        return {"tokens_per_second": rate, "rates": self.rates, "peak_memory_gb": memory, "device": device}


def config_of(given: argparse.Namespace, folder: str, *more: str) -> Any:
    """This program's config, on a checkpoint folder that holds a shape and a tokenizer."""
    from transformers import GPT2Config

    from domaintune.config.composing import default_config
    from domaintune.models.locating import ASSETS

    for file in (ASSETS / "gpt2_tiny").glob("tokenizer*"):
        (Path(folder) / file.name).write_bytes(file.read_bytes())
    GPT2Config(**SHAPES[given.shape], bos_token_id=0, eos_token_id=0).save_pretrained(folder)
    return default_config(
        "name=benchmark",
        f"model={'gpt2_tiny' if given.shape == 'tiny' else 'gpt2'}",
        f"model.checkpoint={folder}",
        "model.init=random",
        *([f"model.dropout={given.dropout}", f"model.attention_dropout={given.dropout}"] if given.dropout == 0 else []),
        f"data.path={given.corpus}",
        f"data.block_size={given.block_size}",
        f"data.batch_size={given.batch_size}",
        f"seed={given.seed}",
        f"optim.lr={LR}",
        f"trainer={'gpu' if given.device == 'cuda' else 'cpu'}",
        "trainer.max_epochs=1000",
        f"paths.runs={folder}",
        *more,
    )


@contextmanager
def prepared_run(given: argparse.Namespace, *more: str) -> Iterator[tuple[Any, Any]]:
    """What `train` is given: everything prepared, under more settings, and the folder of a run."""
    from domaintune.preparing import prepare
    from domaintune.runs.folder import RunFolder

    with tempfile.TemporaryDirectory() as folder:
        config = config_of(given, folder, *more)
        config.trainer.limit_val_batches = 0
        yield prepare(config), RunFolder(Path(folder) / "run")


def documents_of(given: argparse.Namespace) -> list[Any]:
    """Token ids of each training document, with its end-of-text token: (T,) tensors."""
    import torch

    from domaintune.data.tokenizing import tokenize

    with prepared_run(given) as (prepared, _):
        splits = prepared.splits
        tokens = tokenize(splits.documents, embedded_tokenizer(), "text", prepared.config.paths.cache)
        places = zip(*(tokens.starts[splits.of("train") + after].tolist() for after in (0, 1)), strict=True)
        return [torch.from_numpy(tokens.ids(first, end)).long() for first, end in places]


def plain_model(given: argparse.Namespace, drops: bool = True, **shape: int) -> Any:
    """transformers' own, with its own dropout unless that is taken from it, and with other numbers in its shape."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(given.seed)
    dropout = {} if drops and given.dropout is None else dict.fromkeys(DROPOUTS, 0.0)
    shape = SHAPES[given.shape] | shape
    return GPT2LMHeadModel(GPT2Config(**shape, **dropout, bos_token_id=0, eos_token_id=0)).train()


def document_rows(given: argparse.Namespace) -> list[Any]:
    """A document a row, in the order in which both padded ways take them; full batches only."""
    import torch

    documents = documents_of(given)
    order = torch.randperm(len(documents), generator=torch.Generator().manual_seed(given.seed)).tolist()
    return [documents[i][: given.block_size] for i in order[: len(order) // given.batch_size * given.batch_size]]


def padded(rows: list[Any]) -> dict[str, Any]:
    import torch

    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}


def predicted(labels: Any) -> int:
    """Tokens that a batch's labels ask for, once transformers has shifted them."""
    return int((labels[:, 1:] != -100).sum())


def classic(given: argparse.Namespace) -> dict[str, Any]:
    """The loop of the tutorials."""
    import torch

    rows = document_rows(given)
    model = plain_model(given).to(given.device)
    narrow = computes_bf16(given.device, padded=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)
    clock = Clock(given)
    while True:
        for first in range(0, len(rows), given.batch_size):
            batch = padded(rows[first : first + given.batch_size])
            tensors = {name: tensor.to(given.device) for name, tensor in batch.items()}
            with torch.autocast(given.device, torch.bfloat16, enabled=narrow):
                loss = model(**tensors).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if clock.step(predicted(batch["labels"])):
                return clock.result()


def nanogpt(given: argparse.Namespace) -> dict[str, Any]:
    """The loop of nanoGPT's train.py."""
    import torch
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    torch.set_float32_matmul_precision("high")
    # Each has the first token of the next one too: as many are predicted as are read.
    blocks = torch.cat(documents_of(given)).unfold(0, given.block_size + 1, given.block_size)
    vocabulary = -(-SHAPES[given.shape]["vocab_size"] // 64) * 64
    model = plain_model(given, drops=False, vocab_size=vocabulary).to(given.device)
    # Under torch.compile, transformers gives SDPA a mask, and so takes flash attention from it. It makes none for an
    # attention whose name it doesn't know.
    AttentionInterface.register("causal_sdpa", sdpa_attention_forward)
    model.set_attn_implementation("causal_sdpa")
    weights = list(model.parameters())
    groups = [
        {"params": [weight for weight in weights if weight.dim() >= 2], "weight_decay": 0.1},
        {"params": [weight for weight in weights if weight.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=(0.9, 0.95), fused=True)
    draw = torch.Generator().manual_seed(given.seed)
    narrow = computes_bf16(given.device)

    def fetch() -> Any:
        batch = blocks[torch.randint(len(blocks), (given.batch_size,), generator=draw)]
        return batch.pin_memory().to(given.device, non_blocking=True) if given.device == "cuda" else batch

    def loss_of(batch: Any) -> Any:
        logits = model(batch[:, :-1], use_cache=False).logits
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())

    run: Callable[[Any], Any] = torch.compile(loss_of) if given.compile else loss_of
    batch, clock = fetch(), Clock(given)
    while True:
        with torch.autocast(given.device, torch.bfloat16, enabled=narrow):
            loss = run(batch)
        batch = fetch()  # while the GPU computes
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if clock.step(given.batch_size * given.block_size):
            return clock.result()


def counting(clock: Clock, collate: Callable[[list[Any]], Any]) -> tuple[Callable[[list[Any]], Any], Any]:
    """A collator and a callback of Hugging Face's Trainer, which count on the host: batches are made ahead of steps."""
    from transformers import TrainerCallback

    counted: deque[int] = deque()

    def collate_and_count(rows: list[Any]) -> Any:
        batch = collate(rows)
        counted.append(predicted(batch["labels"]))
        return batch

    class Stop(TrainerCallback):
        def on_step_end(self, _args: Any, _state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop = clock.step(counted.popleft())

    return collate_and_count, Stop()


def trainer_settings(given: argparse.Namespace, folder: str, compiled: bool, padded: bool = False) -> dict[str, Any]:
    """What both of Hugging Face's trainers are told: train, and nothing else."""
    return {
        "output_dir": folder,
        "per_device_train_batch_size": given.batch_size,
        "learning_rate": LR,
        "num_train_epochs": 1000,
        "seed": given.seed,
        "dataloader_drop_last": True,
        "bf16": computes_bf16(given.device, padded),
        "torch_compile": compiled,
        "use_cpu": given.device == "cpu",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def trainer(given: argparse.Namespace, blocks: bool, compiled: bool = False) -> dict[str, Any]:
    """Hugging Face's Trainer."""
    import torch
    from transformers import Trainer, TrainingArguments

    class Ordered(Trainer):
        def _get_train_sampler(self, *dataset: Any) -> Any:
            return super()._get_train_sampler(*dataset) if blocks else torch.utils.data.SequentialSampler(rows)

    clock = Clock(given)
    collate, stop = counting(clock, padded)
    rows = list(torch.cat(documents_of(given)).split(given.block_size))[:-1] if blocks else document_rows(given)
    with tempfile.TemporaryDirectory() as folder:
        settings = trainer_settings(given, folder, compiled, padded=not blocks)
        arguments = TrainingArguments(**settings, remove_unused_columns=False)
        Ordered(plain_model(given), arguments, collate, rows, callbacks=[stop]).train()
    return clock.result()


def trl(given: argparse.Namespace) -> dict[str, Any]:
    """TRL's SFTTrainer."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"  # before anything of Hugging Face's is imported: TRL reports its use
    from datasets import Dataset, disable_progress_bars

    sft: Any = importlib.import_module("trl.trainer.sft_trainer")  # of which mypy knows nothing where TRL is missing
    disable_progress_bars()
    clock, tokenizer = Clock(given), embedded_tokenizer()
    collate, stop = counting(clock, sft.DataCollatorForLanguageModeling(tokenizer.eos_token_id))
    rows = Dataset.from_dict({"input_ids": [document.tolist() for document in documents_of(given)]})
    with tempfile.TemporaryDirectory() as folder:
        arguments = sft.SFTConfig(
            **trainer_settings(given, folder, given.compile),
            max_length=given.block_size,
            packing=True,
            packing_strategy="wrapped",
            gradient_checkpointing=False,
            logging_strategy="no",
        )
        model = plain_model(given)
        sft.SFTTrainer(model, arguments, collate, rows, processing_class=tokenizer, callbacks=[stop]).train()
    return clock.result()


def computes_bf16(device: str, padded: bool = False) -> bool:
    """Whether a device has instructions for bf16; the padded ways of the tutorials ask for it on a GPU alone."""
    from domaintune.kernels.hardware import resolve_precision

    return not (padded and device == "cpu") and resolve_precision("auto", device)[0] == "bf16-mixed"


def bare(given: argparse.Namespace) -> dict[str, Any]:
    """This program's parts, without Lightning."""
    import torch

    from domaintune.kernels.attention import isolate_documents
    from domaintune.kernels.linear_cross_entropy import linear_cross_entropy
    from domaintune.kernels.memory import keep_freed_memory
    from domaintune.models.loading import load_model, load_tokenizer
    from domaintune.optim.parameter_groups import parameter_groups
    from domaintune.tasks.causal_lm import CausalLM

    with prepared_run(given) as (prepared, _):
        config = prepared.config
        data = CausalLM.make_data(config, prepared.splits, None, load_tokenizer(prepared.checkpoint, CausalLM.head))
        model = load_model(prepared.checkpoint, config.model, CausalLM.head, torch.float32, config.seed).to(
            given.device
        )
    keep_freed_memory()
    isolate_documents(model)
    narrow = computes_bf16(given.device)
    body: Any = torch.compile(model.base_model.forward, dynamic=False) if given.compile else model.base_model
    optimizer = torch.optim.AdamW(parameter_groups(model, config.optim.weight_decay), lr=LR, fused=True)
    clock = Clock(given)
    for batch in itertools.chain.from_iterable(itertools.repeat(data.train_dataloader())):
        if len(batch["input_ids"]) < given.batch_size:
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


def domaintune(given: argparse.Namespace, compiled: bool = False, checkpointing: bool = False) -> dict[str, Any]:
    """This program as `train.py` calls it, but for the validations and the export."""
    import lightning as L

    from domaintune.callbacks.throughput import Throughput
    from domaintune.kernels.hardware import peak
    from domaintune.trainers import build_trainer, quiet_libraries
    from domaintune.training import build

    clock = Clock(given)

    class Stop(L.Callback):
        def on_train_batch_end(self, trainer: Any, _task: Any, _outputs: Any, batch: Any, *_: Any) -> None:
            trainer.should_stop = clock.step(batch["tokens"])

    quiet_libraries()
    settings = (f"model.compile={compiled}", f"model.gradient_checkpointing={checkpointing}")
    with prepared_run(given, *settings) as (prepared, run):
        trainer = build_trainer(prepared.config, run)
        trainer.callbacks.append(Stop())
        data, task = build(prepared, trainer)
        trainer.fit(task, datamodule=data)
    counted = next(callback for callback in trainer.callbacks if isinstance(callback, Throughput))
    found = {**clock.result(), "flops_per_token": counted.flops_per_token}
    if given.device == "cuda" and (highest := peak("cuda", "bf16-mixed")):  # on a CPU, `product_rates` measures it
        found["peak_flops"] = highest.flops
    return found


def domaintune_checkpointing(given: argparse.Namespace) -> dict[str, Any]:
    return domaintune(given, given.compile, checkpointing=True)


def product_rates(_given: argparse.Namespace) -> dict[str, Any]:
    """What the processor multiplies, for the share of it that the methods reach."""
    import torch

    from domaintune.kernels.hardware import product_rate

    dtypes = {"bf16": torch.bfloat16, "fp32": torch.float32}
    return {name: product_rate(dtype, seconds=1.0) for name, dtype in dtypes.items()}


METHODS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "classic": classic,
    "nanogpt": nanogpt,
    "trainer_padded": partial(trainer, blocks=False),
    "trainer_blocks": partial(trainer, blocks=True),
    "trainer_blocks_compiled": partial(trainer, blocks=True, compiled=True),
    "trl": trl,
    "bare": bare,
    "domaintune": domaintune,
    "domaintune_compiled": partial(domaintune, compiled=True),
    "domaintune_checkpointing": domaintune_checkpointing,
    "product_rates": product_rates,
}
