"""How commands are called: `python scripts/export.py` in a clone, `domaintune export` where there is none."""

import os
import re
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
CLONE = PACKAGE.parents[1]  # where the package lies in src/ of one
IS_CLONE = PACKAGE.parent.name == "src" and (CLONE / "conf" / "train.yaml").is_file()
CONF = CLONE / "conf" if IS_CLONE else PACKAGE / "conf"
COMMAND = "domaintune"


def is_called_as_command() -> bool:
    """Whether this process was started as `domaintune ...`: without a clone there is no other way."""
    return not IS_CLONE or Path(sys.argv[0]).stem == COMMAND or _is_module()


def _is_module() -> bool:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec is not None and spec.name.split(".")[0] == COMMAND


def script_of(name: str) -> str:
    """The file of a command in a clone."""
    return "train.py" if name == "train" else f"scripts/{name}.py"


def program(name: str) -> str:
    """How a command is typed, in a message."""
    return f"{COMMAND} {name}" if is_called_as_command() else f"python {script_of(name)}"


def usage_of(text: str) -> str:
    """A text that names commands as a clone has them, with the words that are typed here."""
    return re.sub(r"python (?:scripts/)?(\w+)\.py", lambda found: program(found[1]), text)


def program_from_here(name: str) -> list[str]:
    """The words that run a command from the current folder, whether or not an environment is active."""
    python = from_here(sys.executable)
    if is_called_as_command():
        started_as = os.path.abspath(sys.argv[0])
        return [from_here(started_as), name] if Path(started_as).stem == COMMAND else [python, "-m", COMMAND, name]
    script = script_of(name)
    return [python, script if os.path.exists(script) else str(CLONE / script)]


def train_again() -> list[str]:
    """The words that start train as this process was started, without its overrides."""
    return [sys.executable, *(["-m", COMMAND] if _is_module() else [os.path.abspath(sys.argv[0])])]


def from_here(path: str | Path) -> str:
    """A path relative to the current folder where it lies below."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
