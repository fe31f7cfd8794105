"""Python's own documentation, as it stands in every interpreter: reference topics, and docstrings with their places.

Read with `ast`: nothing is imported or run.
"""

import ast
import inspect
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SKIPPED_FOLDERS = {
    "test",
    "tests",
    "idle_test",
    "site-packages",
    "dist-packages",
    "__pycache__",
    "lib2to3",
    "pydoc_data",
}
SHORTEST = 80  # characters: below, a docstring is a label ("Return self.") and no text

Definition = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


class Docstring(NamedTuple):
    """`module` is the file that `name` is defined in, as one imports it."""

    module: str
    name: str
    heading: str
    text: str


def reference_topics() -> list[tuple[str, str]]:
    """(name, text) of the topics that pydoc shows."""
    from pydoc_data.topics import topics

    return [(name, text.strip()) for name, text in sorted(topics.items())]


def docstrings() -> Iterator[Docstring]:
    """Of the standard library, in the order of its files."""
    root = Path(sysconfig.get_path("stdlib"))
    for file in sorted(root.rglob("*.py")):
        parts = file.relative_to(root).with_suffix("").parts
        if SKIPPED_FOLDERS.isdisjoint(parts) and not parts[0].startswith("config-"):
            yield from _of_module(file, ".".join(part for part in parts if part != "__init__"))


def _of_module(file: Path, module: str) -> Iterator[Docstring]:
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # templates and deliberately broken files
        return
    for name, node in [(module, tree), *_definitions(tree, module)]:
        text = ast.get_docstring(node)
        if text and len(text) >= SHORTEST:
            yield Docstring(module, name, _heading(name, node), inspect.cleandoc(text))


def _definitions(
    node: ast.Module | ast.ClassDef, prefix: str
) -> Iterator[tuple[str, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]]:
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            name = f"{prefix}.{child.name}"
            yield name, child
            if isinstance(child, ast.ClassDef):
                yield from _definitions(child, name)


def _heading(name: str, node: Definition) -> str:
    """`json.dumps(obj, *, skipkeys=False)`, `class json.JSONDecoder` or `module json`."""
    if isinstance(node, ast.Module):
        return f"module {name}"
    if isinstance(node, ast.ClassDef):
        return f"class {name}"
    return f"{name}({ast.unparse(node.args)})"
