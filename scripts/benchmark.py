"""This program against the ways that tutorials show, on this machine.

    python scripts/benchmark.py train --shape tiny
    python scripts/benchmark.py train --shape gpt2 --rounds 3 --seconds 60 --json result.json
    python scripts/benchmark.py data --megabytes 20

`train --help` and `data --help` say what is compared. Each measurement is a process of its own; rounds alternate, so
that a machine whose speed drifts drifts for all.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import data, training

COMPARED = {"train": training, "data": data}


def compare(given: argparse.Namespace) -> None:
    """Alternates the methods and prints medians, ranges and ratios."""
    methods = COMPARED[given.what].METHODS
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in methods}
    with tempfile.TemporaryDirectory() as folder:
        settings = ["--shape", given.shape, "--seconds", str(given.seconds)] if given.what == "train" else []
        if given.what == "data":
            corpus = Path(folder) / "corpus.jsonl"
            data.make_corpus(corpus, given.megabytes)
            settings = ["--corpus", str(corpus)]
        for number in range(given.rounds):
            for name in methods:
                measured[name].append(measure(given.what, name, settings))
                print(f"round {number + 1}: {name} {measured[name][-1]['tokens_per_second']:,.0f} tokens/s", flush=True)
    title = f"shape {given.shape}" if given.what == "train" else f"{given.megabytes:g} MB"
    show(measured, title, COMPARED[given.what].BASES)
    if given.json:
        Path(given.json).write_text(json.dumps({"what": title, "measured": measured}, indent=2) + "\n")


def measure(what: str, name: str, settings: list[str]) -> dict[str, float]:
    """One method, in a process of its own."""
    command = [sys.executable, __file__, "one", what, name, *settings]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def show(measured: dict[str, list[dict[str, float]]], title: str, bases: tuple[str, ...]) -> None:
    """A row per method; a ratio is the median of the rounds' own ratios."""
    table = Table(title, "tokens/s", "min", "max", "peak GB", *(f"against {base}" for base in bases))
    rates = {name: [run["tokens_per_second"] for run in runs] for name, runs in measured.items()}
    for name, runs in measured.items():
        ratios = [
            statistics.median(mine / other for mine, other in zip(rates[name], rates[base], strict=True))
            for base in bases
        ]
        memory = max(run["peak_memory_gb"] for run in runs)
        figures = [f"{value:,.0f}" for value in (statistics.median(rates[name]), min(rates[name]), max(rates[name]))]
        table.add_row(name, *figures, f"{memory:.2f}", *(f"{ratio:.2f} x" for ratio in ratios))
    Console().print(table)


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    commands = parser.add_subparsers(required=True, metavar="train|data", dest="what")
    parsers = {}
    for name, module in COMPARED.items():
        about = (module.__doc__ or "").split("\n")[0]
        parsers[name] = commands.add_parser(name, help=about, description=module.__doc__, formatter_class=raw)
        parsers[name].add_argument("--rounds", type=int, default=3)
        parsers[name].add_argument("--json", metavar="PATH", help="write every measurement there")
        parsers[name].set_defaults(run=compare)
    one = commands.add_parser("one")  # a measurement in a process of its own
    one.add_argument("group", choices=COMPARED)
    one.add_argument("method")
    one.add_argument("--corpus")
    one.set_defaults(run=lambda given: print(json.dumps(COMPARED[given.group].METHODS[given.method](given))))
    for command in (parsers["train"], one):
        command.add_argument("--shape", choices=training.SHAPES, default="tiny")
        command.add_argument("--seconds", type=float, default=20, help="of each measurement (default 20)")
    parsers["data"].add_argument("--megabytes", type=float, default=20, help="of text (default 20)")
    given = parser.parse_args()
    given.run(given)


if __name__ == "__main__":
    main()
