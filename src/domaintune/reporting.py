"""What a run says to a person: before it starts, and when it has ended."""

import os
import sys

from rich.console import Console
from rich.table import Table
from rich.text import Text

from domaintune.config import Config
from domaintune.recording import RunFolder

console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)


def print_plan(config: Config, run: RunFolder) -> None:
    """Model, data, device and step counts: the derived numbers that a person can check."""
    weights, data, precision = run.result["weights"], run.result["data"], run.result["precision"]
    source = "random weights, shape of" if weights["init"] == "random" else "weights of"
    rows = {
        "model": f"{source} {weights['checkpoint']} ({weights['found']}), "
        + f"{weights['parameters'] / 1e6:.1f}M parameters",
        "data": f"{config.data.path or 'embedded: the documentation of Python'}, "
        + f"{data['duplicates_dropped']:,} exact duplicates left out",
        **{side: _side(data[side]) for side in ("train", "val", "test")},
        "batches": f"{data['batches']:,} an epoch, of {config.data.batch_size} {config.data.batching} rows, "
        + f"optimizer step every {config.trainer.accumulate_grad_batches}",
        "optimizer": f"AdamW, lr {config.optim.lr:g}, {config.scheduler.name} after warm-up",
        "precision": f"{precision['name']} on {precision['device']}: {precision['why']}",
        "folder": str(run.path),
    }
    table = Table.grid(padding=(0, 2))
    for name, value in rows.items():
        table.add_row(Text(name, style="bold"), value)
    console.print(table)


def _side(account: dict[str, int]) -> str:
    return (
        f"{account['documents']:,} documents, {account['tokens']:,} tokens, {account['predicted_tokens']:,} of them "
        f"predicted, in {account['windows']:,} windows"
    )


def print_result(run: RunFolder) -> None:
    """Before and after, a sample of each, where everything is, and what to try next."""
    result = run.result
    metrics = result["metrics"]
    table = Table("validation", "before", "after (best.ckpt)")
    for name in metrics["after"]:
        table.add_row(name.removeprefix("val/"), f"{metrics['before'][name]:.4g}", f"{metrics['after'][name]:.4g}")
    console.print(table)
    before, after = result["samples"]["before"], result["samples"]["after"]
    for prompt in [prompt for prompt in after if prompt in before][:1]:
        for when, texts in (("before", before), ("after", after)):
            console.print(Text.assemble((f"sample {when}: ", "bold"), (prompt, "dim"), texts[prompt]))
    speed = result.get("tokens_per_second") or 0
    console.print(
        f"{result['steps']:,} steps, {result['tokens_trained']:,} tokens in {result['training_seconds']:.0f} s "
        f"({speed:,.0f} tokens a second while training), peak memory {result['peak_memory_gb']:.2f} GB"
    )
    console.print(
        f"saved in {_shown(run)}: best.ckpt and last.ckpt in checkpoints/, a model for transformers in export/"
    )
    console.print(Text("try next", style="bold"))
    prompt = next(iter(after), "The ").split("\n")[0]
    for command in (
        f'python scripts/generate.py run={_shown(run)} prompt="{prompt}"',
        f"python scripts/evaluate.py run={_shown(run)}",
        "python train.py data.path=YOUR_TEXT",
    ):
        console.print(Text(f"  {command}"), soft_wrap=True)


def _shown(run: RunFolder) -> str:
    """The folder's path from here, where it lies below."""
    relative = os.path.relpath(run.path)
    return str(run.path) if relative.startswith("..") else relative


def model_card(config: Config, run: RunFolder) -> str:
    """README.md of an export: what it was made from and how well it does."""
    result, after = run.result, run.result["metrics"]["after"]
    figures = "\n".join(
        f"| {name} | {result['metrics']['before'][name]:.4f} | {value:.4f} |" for name, value in after.items()
    )
    base = config.model.checkpoint
    front = f"base_model: {base}\n" if "/" in base and not os.path.exists(base) else ""
    return f"""---
library_name: transformers
pipeline_tag: text-generation
{front}tags: [domaintune]
---
# {config.name}

{base} ({config.model.init}), fine-tuned with `{result["command"]}`.

| validation | before | after |
|---|---|---|
{figures}

Trained on {result["tokens_trained"]:,} tokens of {config.data.path or "the documentation of Python"} in
{result["steps"]:,} steps. SHA-256 of the split text: {result["data"]["sha256"]}; of the weights it started from:
{result["weights"]["sha256"] or "none, they were random"}.
"""
