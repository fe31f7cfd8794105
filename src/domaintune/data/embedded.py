"""The embedded domain corpus: Python's own documentation, as it stands in every interpreter.

The reference topics of `pydoc_data.topics` and the docstrings of the standard library, read with `ast` (nothing is
imported or run): about 2 MB of technical English. It is made on the spot and never shipped.
"""

import ast
import inspect
import json
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from domaintune.writing import write_whole

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
FORMAT = 1  # raise when the same interpreter would give another corpus


def embedded_corpus(cache: str) -> Path:
    """The corpus as a .jsonl file in the cache folder; written at the first call.

    Returns:
        the file, with fields `text` and `source`; its name holds the interpreter's version.
    """
    version = ".".join(map(str, sys.version_info[:3]))
    file = Path(cache).expanduser() / f"python-docs-{version}-{FORMAT}.jsonl"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        rows = [json.dumps({"text": text, "source": source}) for source, text in [*_topics(), *_docstrings()]]
        write_whole(file, "\n".join(rows) + "\n")
    return file


def _topics() -> Iterator[tuple[str, str]]:
    from pydoc_data.topics import topics

    for name, text in sorted(topics.items()):
        yield f"topic {name}", text.strip()


def _docstrings() -> Iterator[tuple[str, str]]:
    root = Path(sysconfig.get_path("stdlib"))
    for file in sorted(root.rglob("*.py")):
        parts = file.relative_to(root).with_suffix("").parts
        if SKIPPED_FOLDERS.isdisjoint(parts) and not parts[0].startswith("config-"):
            yield from _of_module(file, ".".join(part for part in parts if part != "__init__"))


def _of_module(file: Path, module: str) -> Iterator[tuple[str, str]]:
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # templates and deliberately broken files
        return
    for name, node in [(module, tree), *_definitions(tree, module)]:
        text = ast.get_docstring(node)
        if text and len(text) >= SHORTEST:
            yield name, f"{_heading(name, node)}\n\n{inspect.cleandoc(text)}"


def _definitions(
    node: ast.Module | ast.ClassDef, prefix: str
) -> Iterator[tuple[str, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]]:
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            name = f"{prefix}.{child.name}"
            yield name, child
            if isinstance(child, ast.ClassDef):
                yield from _definitions(child, name)


def _heading(name: str, node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """`json.dumps(obj, *, skipkeys=False)`, `class json.JSONDecoder` or `module json`."""
    if isinstance(node, ast.Module):
        return f"module {name}"
    if isinstance(node, ast.ClassDef):
        return f"class {name}"
    return f"{name}({ast.unparse(node.args)})"
