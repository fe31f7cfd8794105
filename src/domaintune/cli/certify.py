"""Proof, on this machine, of what the README says of arithmetic and survival: exit status 0 if all of it holds.

    python scripts/certify.py gradients    # one batch of 16 documents, cut up in every way, by one process and by two
    python scripts/certify.py validation   # one set of documents in batches of several sizes
    python scripts/certify.py resume       # runs killed at random moments against the same runs left alone

All on a small model and Python's help texts, in fp32.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from domaintune.certifying.small import SHAPES, settings
from domaintune.config.programs import program, usage_of


def rows(given: argparse.Namespace, folder: Path) -> Any:
    """The rows of the table that was asked for, as they are found out."""
    from domaintune.certifying import arithmetic, survival

    return {
        "gradients": arithmetic.certify_gradients,
        "validation": arithmetic.certify_validation,
        "resume": survival.certify_resume,
    }[given.what](given, folder)


def show(found: list[dict[str, Any]]) -> None:
    table = Table(*found[0], title=None)
    for row in found:
        table.add_row(*(f"{value:.2g}" if isinstance(value, float) else str(value) for value in row.values()))
    Console(width=None if Console().is_terminal else 220).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog=program("certify"),
        description=usage_of(__doc__ or ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=["gradients", "validation", "resume"])
    parser.add_argument("--shape", choices=SHAPES, default="gpt2", help="of the model")
    parser.add_argument("--micro", type=int, nargs="+", default=[1, 2, 4, 16], help="gradients: rows of a micro-batch")
    parser.add_argument("--processes", type=int, nargs="+", choices=[1, 2], help="gradients: of these only")
    parser.add_argument("--kills", type=int, default=20, help="resume: of all runs together")
    parser.add_argument("--seed", type=int, default=0, help="resume: of the moments")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        from domaintune.certifying.arithmetic import gradients

        gradients(given, given.folder)
        return
    with tempfile.TemporaryDirectory() as made:
        folder = (given.folder or Path(made)) / given.shape
        settings(folder, given.shape)
        found = []
        for row in rows(given, folder):
            found.append(row)
            print("." if row["right"] else "X", end="", flush=True)
        print()
        show(found)
    right = sum(row["right"] for row in found)
    print(f"{right} of {len(found)} hold")
    raise SystemExit(0 if right == len(found) else 1)


if __name__ == "__main__":
    main()
