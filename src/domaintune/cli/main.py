"""The `domaintune` command: `domaintune train data.path=notes`. Without the name of a command it trains."""

import os
import sys
from importlib import import_module
from importlib.metadata import version

from domaintune.config.hints import nearest

COMMANDS = {
    "train": "fine-tune a model on your own text; -m runs a sweep",
    "generate": "let a model continue text, or answer",
    "evaluate": "measure a model on text",
    "predict": "label, tag or continue each row of a file",
    "leaderboard": "rank the trials of a sweep",
    "export": "write the model of a run that has not finished",
    "prune": "remove what takes disk and is no longer needed",
    "make_tokenizer": "train a tokenizer on your own text",
    "certify": "prove on this machine what is promised of arithmetic and resuming",
}
USAGE = (
    "domaintune COMMAND KEY=VALUE ...    (domaintune COMMAND --help says more)\n\n"
    + "\n".join(f"  {name:16}{what}" for name, what in COMMANDS.items())
    + "\n\n  domaintune train data.path=~/notes name=notes"
    + '\n  domaintune generate run=notes prompt="Dear diary, "'
)


def main() -> None:
    """Runs the command that the first argument names, with the others."""
    first, *others = sys.argv[1:] or ["--help"]
    if first == "help" and others:
        first, others = others[0], ["--help"]
    if first in ("-h", "--help", "help"):
        print(USAGE)
        return
    if first == "--version":
        print(f"domaintune {version('domaintune')}")
        return
    if "COMP_LINE" in os.environ:  # a shell asks what could stand next; Hydra knows of no command before the overrides
        os.environ["COMP_LINE"] = os.environ["COMP_LINE"].replace(" train ", " ", 1)
    name = first
    if name in COMMANDS:
        sys.argv[1:] = others
    elif "=" in first or first.startswith(("-", "~")):  # processes of a run, and trials, are started so
        name = "train"
    else:
        print(f"error: there is no command {first}{nearest(first, list(COMMANDS))}\n{USAGE}", file=sys.stderr)
        raise SystemExit(2)
    import_module(f"domaintune.cli.{name}").main()
