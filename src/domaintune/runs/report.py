"""What a run says to a person: before it starts, and when it has ended."""

import math
import os
import re
import shlex
import sys
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from domaintune.config.overrides import as_one_value
from domaintune.config.own_leaves import OPTIONS
from domaintune.config.programs import from_here, program_from_here
from domaintune.config.schema import Config
from domaintune.config.tasks import declared_task
from domaintune.config.wording import escaped, for_shell
from domaintune.data.finding import passed_over
from domaintune.data.left_out import counted
from domaintune.optim.schedules import warmup_length
from domaintune.runs.folder import RunFolder, optional, read_config
from domaintune.runs.outcomes import trial_overrides

EMBEDDED = {
    "domain": "embedded: the documentation of Python",
    "topic": "embedded: docstrings of Python's library and its areas",
    "entities": "embedded: the reference of Python and the names in it",
    "summaries": "embedded: docstrings of Python's library and their first lines",
}
CLASSES = 12  # that a line names
LONGEST_PROMPT = 120  # characters of a prompt that is printed to be typed again

console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)


def print_plan(config: Config, run: RunFolder, devices: int) -> None:
    """Model, data, device and step counts: the derived numbers that a person can check."""
    with optional("the plan could not be printed"):
        _print_plan(config, run, devices)


def _print_plan(config: Config, run: RunFolder, devices: int) -> None:
    weights, data, precision = run.result["weights"], run.result["data"], run.result["precision"]
    source = "random weights, shape of" if weights["init"] == "random" else "weights of"
    rows = {
        "model": f"{source} {weights['checkpoint']} ({weights['found']}), "
        + f"{weights['parameters'] / 1e6:.1f}M parameters"
        + ", a new head" * weights["new_head"]
        + _trained(config, weights),
        "data": _data(config, data),
        **{side: _side(data[side]) for side in ("train", "val", "test")},
        "length": _length(config, data["train"]["batches"], devices),
        "optimizer": f"AdamW, lr {config.optim.lr:g}, {run.result['schedule']['words']}",
        "precision": f"{precision['name']} on {precision['device']}: {precision['why']}",
        "folder": _shown(run),
    }
    table = Table.grid(padding=(0, 2))
    for name, value in rows.items():
        table.add_row(Text(name, style="bold"), Text(value))
    console.print(table)


def _trained(config: Config, weights: dict[str, Any]) -> str:
    """How many parameters are trained, where that isn't all."""
    if weights["trained_parameters"] == weights["parameters"]:
        return ""
    how = "LoRA" if config.peft.name == "lora" else "the others frozen"
    return f", {weights['trained_parameters']:,} of them trained ({how})"


def _length(config: Config, batches: int, devices: int) -> str:
    """How many optimizer steps there will be, and what ends the run."""
    trainer = config.trainer
    each, ends = _batches(config, batches, devices), _ends(config, batches, devices)
    said = f"{each:,} batches of {config.data.batch_size} {config.data.batching} rows an epoch"
    if devices > 1:
        said += f" on each of {devices} devices"
    if ends:
        said += f"; {min(ends):,} optimizer steps ({ends[min(ends)]})"
    if ends and trainer.max_steps > min(ends):
        said += f"; trainer.max_steps={trainer.max_steps} is more: trainer.max_epochs=-1 lets the run get there"
    return said + (f"; at most trainer.max_time={trainer.max_time}" if trainer.max_time else "")


def _batches(config: Config, batches: int, devices: int) -> int:
    """Of an epoch, on each device."""
    each, limit = math.ceil(batches / devices), config.trainer.limit_train_batches
    return min(each, limit) if isinstance(limit, int) else int(each * limit)


def _ends(config: Config, batches: int, devices: int) -> dict[int, str]:
    """{optimizer steps: the setting that ends the run after them}; empty where time alone does."""
    trainer, ends = config.trainer, {}
    if trainer.max_epochs not in (None, -1):
        steps = math.ceil(_batches(config, batches, devices) / trainer.accumulate_grad_batches)
        ends[steps * int(trainer.max_epochs or 0)] = f"trainer.max_epochs={trainer.max_epochs}"
    if trainer.max_steps != -1:
        ends[trainer.max_steps] = f"trainer.max_steps={trainer.max_steps}"
    return ends


def schedule(config: Config, batches: int, devices: int) -> dict[str, Any]:
    """What becomes of the learning rate in a run, for result.json.

    Args:
        batches: of an epoch, on all devices together.
    """
    shape, steps = config.scheduler, min(_ends(config, batches, devices), default=math.inf)
    warmup = warmup_length(shape.warmup_steps, steps)
    words = f"{shape.name} after a warm-up of {warmup:,} step{'s' * (warmup != 1)}" if warmup else shape.name
    if shape.warmup_steps >= 1 and warmup != shape.warmup_steps:
        words += f"; scheduler.warmup_steps={shape.warmup_steps:g} is no less than the run: cut to half of it"
    if shape.name != "constant" and not math.isfinite(steps):
        words += "; it never falls, since trainer.max_time alone ends the run: trainer.max_steps would let it"
    return {
        "name": shape.name,
        "steps": steps if math.isfinite(steps) else None,
        "warmup_steps": warmup,
        "words": words,
    }


def _data(config: Config, data: dict[str, Any]) -> str:
    """What was read, and everything that was left out."""
    paths = config.data.path or EMBEDDED[config.data.embedded or "domain"]
    said = f"{paths if isinstance(paths, str) else ', '.join(paths)}: {data['documents_read']:,} documents"
    for what in ("duplicates", "near_duplicates"):
        said += f", {what.replace('_', ' ')} left out: {data[f'{what}_left_out']:,}" * (
            what == "duplicates" or config.data.dedup == "near"
        )
    if data["held_out_left_out"]:
        said += f", left out since their group or what they give is held out: {data['held_out_left_out']:,}"
    if data["left_out"]:
        said += f", left out: {counted(data['left_out'])}"
    if words := passed_over(data["other_files"], data["own_files"]):
        said += f"\nleft out: {words}"
    if unused := data["messages_after_last_answer"]:
        said += f"\nmessages after the last answer of a chat, or blank answers, which are not learnt from: {unused:,}"
    if config.data.batching == "concatenated":
        said += "\nconcatenated: training sees across documents, validation does not"
    return said


def _side(account: dict[str, Any]) -> str:
    """The side's tokens; all of them are predicted or named here."""
    if not account["documents"]:
        return "none"
    if "unit" in account:
        return _examples(account)
    return (
        f"{account['documents']:,} documents (longest {account['longest_document']:,}), {account['tokens']:,} tokens = "
        f"{account['predicted_tokens']:,} predicted + {account['context_tokens']:,} context, padding "
        f"{account['padding']:.1%}"
        + f", {account['dropped_tokens']:,} too far from an answer: left out"
        * (account["dropped_tokens"] > 0)
    )


def _examples(account: dict[str, Any]) -> str:
    """Of tasks that learn labels: how many of what, what was cut off, and how often each class occurs."""
    cut = "cut into several" if account["dropped_tokens"] == 0 else f"{account['dropped_tokens']:,} tokens cut off"
    said = (
        f"{account['documents']:,} documents (longest {account['longest_document']:,}), {account['tokens']:,} tokens, "
        f"{account['predicted_tokens']:,} {account['unit']} with labels, padding {account['padding']:.1%}"
        + f", {account['cut_documents']:,} too long: {cut}"
        * (account["cut_documents"] > 0)
    )
    if bare := account.get("words_without_tokens"):
        said += f", {bare:,} words without a token and so without a label"
    if not account["classes"]:
        return said
    classes = sorted(account["classes"].items(), key=lambda item: -item[1])
    more = f" and {len(classes) - CLASSES} more" if len(classes) > CLASSES else ""
    return f"{said}\n{', '.join(f'{escaped(name)} {count:,}' for name, count in classes[:CLASSES])}{more}"


def print_result(run: RunFolder) -> None:
    """Before and after, a sample of each, where everything is, and what to try next."""
    with optional("the results, which are in result.json, could not be printed"):
        _print_result(run)


def _print_result(run: RunFolder) -> None:
    result = run.result
    metrics = result["metrics"]
    table = Table("validation", "before", "after (best.ckpt)")
    for name, after in metrics["after"].items():
        before = f"{metrics['before'][name]:.4g}" if name in metrics["before"] else ""
        table.add_row(Text(escaped(name.removeprefix("val/"))), before, f"{after:.4g}")
    console.print(table)
    for verdict in verdicts(result, read_config(run.path)):
        _say(f"note: {verdict}")
    before, after = result["samples"]["before"], result["samples"]["after"]
    for prompt in [prompt for prompt in after if prompt in before][:1]:
        for when, texts in (("before", before), ("after", after)):
            console.print(Text.assemble((f"sample {when}: ", "bold"), (f"{prompt} ⟶", "dim"), texts[prompt]))
    speed = result.get("tokens_per_second")
    at = f" at {speed:,.0f} tokens a second" if speed else ""
    _say(
        f"{result['steps']:,} steps, {result['tokens_trained']:,} tokens{at}; "
        f"{result['fit_seconds']:.0f} s with validations, peak memory {result['peak_memory_gb']:.2f} GB"
    )
    folder = _shown(run)
    kept = " and ".join(file.name for file in (run.best, run.last) if file.exists())
    _say(f"saved in {folder}: {kept} in checkpoints/, a model for transformers in export/")
    _say("try next", style="bold")
    for arguments in _next_commands(run, folder, next(iter(after), "The ")):
        _say("  " + " ".join(map(for_shell, [*program_from_here(arguments[0]), *arguments[1:]])))


def verdicts(result: dict[str, Any], config: dict[str, Any]) -> Iterator[str]:
    """What is bad about the outcome of a run, in words: its monitored metric is judged."""
    before, after, monitor = result["metrics"]["before"], result["metrics"]["after"], config["task"]["monitor"]
    sign = -1 if config["task"]["mode"] == "max" else 1
    if monitor in before and not sign * after[monitor] < sign * before[monitor]:
        yield (
            f"training did not help: {monitor} was {before[monitor]:.4g} before and is {after[monitor]:.4g} at its "
            f"best after. The learning rate may be too high: optim.lr={config['optim']['lr'] / 10:.2g} is a tenth of it"
        )
    unigram = (result.get("unigram") or {}).get("val/loss")
    if unigram is not None and after["val/loss"] > unigram:
        yield (
            f"val/loss {after['val/loss']:.4g} is worse than {unigram:.4g}, which the frequencies of the text's tokens "
            f"alone give: the model has not learnt the text. Train longer, or with another optim.lr"
        )


def _next_commands(run: RunFolder, folder: str, opening: str) -> Iterator[list[str]]:
    """What one can do with a finished run, ask its model, measure it, train another: a command and its arguments."""
    config = read_config(run.path)
    predicts = config["task"].get("predicts", declared_task(config["task"]["name"]).predicts)
    if config["data"]["format"] == "instructions" and (run.export / "chat_template.jinja").exists():
        yield ["generate", f"run={folder}", "chat=true", "prompt=YOUR_QUESTION"]
    elif "text" in predicts:
        opening = opening.removeprefix(config["data"].get("prefix") or "")  # which generate puts before it
        prompt = opening if len(opening) <= LONGEST_PROMPT else "YOUR_PROMPT"
        yield ["generate", f"run={folder}", f"prompt={prompt}"]
    elif predicts:
        yield ["predict", f"run={folder}", "input=YOUR_TEXTS.csv", "output=predictions.jsonl"]
    else:  # it is there to learn labels next
        start = f"model.checkpoint={folder}/export"
        yield ["train", "data=sentiment", start, "data.path=YOUR_LABELLED_TEXTS.csv"]
    yield ["evaluate", f"run={folder}"]
    if config["data"]["path"] is None:
        yield ["train", *_chosen(run, "experiment", "task", "data"), "data.path=YOUR_TEXT"]
    elif trial_overrides(run.path) is None:
        yield ["train", "-m", f"name={config['name']}_rates", *_rates(config), *_typed_again(run)]


def _rates(config: dict[str, Any]) -> list[str]:
    lr = config["optim"]["lr"]
    return [f"optim.lr={lr / 3:.2g},{lr:.2g},{lr * 3:.2g}"]


def _chosen(run: RunFolder, *groups: str) -> list[str]:
    """What was typed to choose a leaf of these groups, and the folder of leaves."""
    typed, chosen = iter(_typed(run)), []
    for each in typed:
        if each.partition("=")[0] in groups:
            chosen.append(each)
        elif each in OPTIONS:
            chosen += [each, next(typed, "")]
        elif each.partition("=")[0] in OPTIONS:
            chosen.append(each)
    return chosen


def _typed(run: RunFolder) -> list[str]:
    return shlex.split(run.result["command"])[2:]


def _typed_again(run: RunFolder) -> list[str]:
    """What was typed for a run, without what names it and the learning rate."""
    typed = _typed(run)
    return [as_one_value(each) for each in typed if each.partition("=")[0] not in ("name", "fresh", "optim.lr")]


def _say(text: str, style: str = "") -> None:
    """A line that stays one line, for copying."""
    console.print(Text(text, style=style), soft_wrap=True)


def _shown(run: RunFolder) -> str:
    return from_here(run.path)


def model_card(config: Config, run: RunFolder) -> str:
    """README.md of an export: what it was made from and how well it does."""
    with optional("the model card could not be written"):
        return _model_card(config, run)
    return f"# {escaped(config.name)}\n"


def _model_card(config: Config, run: RunFolder) -> str:
    result, metrics = run.result, run.result.get("metrics", {})
    figures = "\n".join(
        f"| {_in_markdown(name)} | {metrics['before'].get(name, math.nan):.4f} | {value:.4f} |"
        for name, value in metrics.get("after", {}).items()
    )
    table = f"| validation | before | after |\n|---|---|---|\n{figures}" if figures else "Training has not ended."
    learnt_from = config.data.path or EMBEDDED[config.data.embedded or "domain"].removeprefix("embedded: ")
    trained = f"Trained on {learnt_from}. "
    if "steps" in result:
        trained = f"Trained on {result['tokens_trained']:,} tokens of {learnt_from} in {result['steps']:,} steps. "
    base = config.model.checkpoint
    front = f"base_model: {base}\n" if "/" in base and not os.path.exists(base) else ""
    return f"""---
library_name: transformers
pipeline_tag: {config.task.pipeline}
{front}tags: [domaintune]
---
# {config.name}

{base} ({config.model.init}), fine-tuned with `{result["command"]}`.

{table}

{trained}SHA-256 of the split text: {result["data"]["sha256"]};
of the weights it started from: {result["weights"]["sha256"] or "none, they were random"}.
"""


def _in_markdown(name: str) -> str:
    """A name in a cell of a table, as it is."""
    return re.sub(r"([\\`*_\[\]<>|~$&#!])", r"\\\1", escaped(name))
