"""What `train --help` lists. Its frame is the template in conf/hydra/default.yaml."""

from domaintune.config.own_leaves import folders
from domaintune.config.schema import all_facts

FIXED = ("hydra", "paths")  # groups in which nothing is chosen
WIDTH = 22  # of the first column


def list_groups() -> str:
    """The groups of conf/ and of a person's own folder with their choices, a line each."""
    choices: dict[str, set[str]] = {}
    for folder in folders():
        for leaf in folder.glob("*/*.yaml"):
            if not leaf.name.startswith("_") and leaf.parent.name not in FIXED:
                choices.setdefault(leaf.parent.name, set()).add(leaf.stem)
    return "\n".join(f"  {group:{WIDTH}} {', '.join(sorted(choices[group]))}" for group in sorted(choices))


def list_settings(*names: str) -> str:
    """What these settings mean, a line each."""
    return "\n".join(f"  {name:{WIDTH}} {all_facts()[name].meaning}" for name in names)
