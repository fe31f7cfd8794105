"""The embedded corpora, made on the spot from the interpreter's own documentation and never shipped.

- domain: about 2 MB of technical English, for language models.
- topic: docstrings, and which area of the library they are from.
- entities: sentences of the reference, and the names that they quote, by kind.
- summaries: docstrings, and their first lines.
"""

import builtins
import json
import keyword
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from domaintune.data.library import SHORTEST, docstrings, reference_topics
from domaintune.files.writing import write_whole

FORMAT = 2  # raise when the same interpreter would give another corpus
GROUPS = {"topic": "module"}  # columns of corpora whose rows are split by them


def embedded_corpus(cache: str, name: str = "domain") -> Path:
    """A corpus as a .jsonl file in the cache folder; written at the first call.

    Returns:
        the file; its name holds the interpreter's version.
    """
    version = ".".join(map(str, sys.version_info[:3]))
    file = Path(cache).expanduser() / f"python-{NAMES.get(name, name)}-{version}-{FORMAT}.jsonl"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, "".join(json.dumps(row) + "\n" for row in CORPORA[name]()))
    return file


NAMES = {"domain": "docs"}


def _domain() -> Iterator[dict[str, Any]]:
    return ({"text": text, "source": source} for source, text in [*_topics(), *_docstrings()])


def _topics() -> Iterator[tuple[str, str]]:
    return ((f"topic {name}", text) for name, text in reference_topics())


def _docstrings() -> Iterator[tuple[str, str]]:
    return ((found.name, f"{found.heading}\n\n{found.text}") for found in docstrings())


# The library's manual puts its modules in chapters; these are its chapters, the smaller ones put together. Modules in
# none of them are left out.
AREAS = {
    "concurrency": "asyncio concurrent contextvars multiprocessing queue sched selectors signal subprocess threading",
    "data formats": "base64 binascii configparser csv email html json mailbox netrc plistlib quopri tomllib xml",
    "data types": "_collections_abc _weakrefset abc array bisect calendar collections copy copyreg dataclasses "
    "datetime enum functools graphlib heapq itertools operator pprint reprlib types typing weakref zoneinfo",
    "development": "bdb cProfile code codeop cmd doctest faulthandler idlelib pdb profile pstats pydoc timeit trace "
    "traceback tracemalloc unittest",
    "files": "bz2 filecmp fileinput fnmatch genericpath glob gzip io linecache lzma ntpath os pathlib posixpath shelve "
    "shutil stat tarfile tempfile zipfile zipapp dbm sqlite3 pickle",
    "interface": "argparse curses getopt getpass gettext locale logging optparse tkinter turtle turtledemo",
    "language": "ast compileall dis distutils ensurepip importlib inspect keyword modulefinder opcode pkgutil "
    "pyclbr py_compile runpy site symtable sysconfig tabnanny token tokenize venv warnings zipimport",
    "net": "_strptime cgi cgitb ftplib http imaplib ipaddress nntplib poplib smtplib socket socketserver ssl telnetlib "
    "urllib uuid webbrowser wsgiref xmlrpc",
    "numbers": "_pydecimal colorsys decimal fractions numbers random secrets statistics hashlib hmac",
    "text": "codecs difflib encodings re rlcompleter shlex string stringprep textwrap",
}
AREA_OF = {module: area for area, modules in AREAS.items() for module in modules.split()}


def _topic() -> Iterator[dict[str, Any]]:
    """Without the headings, which name the module."""
    for found in docstrings():
        if area := AREA_OF.get(found.module.split(".")[0]):
            yield {"text": found.text, "label": area, "module": found.module, "source": found.name}


QUOTED = re.compile(r'"([^"\n]{1,40})"')
WORD = re.compile(r"\w+(?:\.\w+)*|[^\w\s]")
SENTENCE = re.compile(r"(?<=[.:])\s+(?=[A-Z\"])")
FEWEST_WORDS = 5


def _entities() -> Iterator[dict[str, Any]]:
    for name, text in reference_topics():
        for paragraph in re.split(r"\n\s*\n", text):
            # Programs and grammars are no sentences, nor are headings.
            if "::=" in paragraph or ">>>" in paragraph or re.search(r"(?m)^[*=\-~]{3,}$|^\s{5,}", paragraph):
                continue
            for sentence in SENTENCE.split(" ".join(paragraph.split())):
                tokens, tags = _tagged(sentence)
                if len(tokens) >= FEWEST_WORDS and _quotes_names(sentence):
                    yield {"tokens": tokens, "tags": tags, "source": f"topic {name}"}


def _quotes_names(sentence: str) -> bool:
    """Not where a quote is longer, or was cut: behind it what stands between two names looks quoted."""
    parts = QUOTED.split(sentence)
    return '"' not in "".join(parts) and all(name == name.strip() for name in parts[1::2])


def _tagged(sentence: str) -> tuple[list[str], list[str]]:
    """Words with their tags; the quotes, and the brackets after a method's name, are gone."""
    tokens: list[str] = []
    tags: list[str] = []
    for number, part in enumerate(QUOTED.split(sentence)):  # every other one was quoted
        words = WORD.findall(part.removesuffix("()") if number % 2 else part)
        kind = _kind(part) if number % 2 else ""
        tokens += words
        tags += [f"{'I' if place else 'B'}-{kind}" if kind else "O" for place in range(len(words))]
    return tokens, tags


def _kind(quoted: str) -> str:
    name = quoted.removesuffix("()")
    if name in (*keyword.kwlist, *keyword.softkwlist):
        return "keyword"
    if name in dir(builtins):
        return "builtin"
    return "method" if quoted.endswith("()") or re.fullmatch(r"(\w+\.)*__\w+__", name) else "other"


def _summaries() -> Iterator[dict[str, Any]]:
    for found in docstrings():
        first, _, body = found.text.partition("\n\n")
        target = " ".join(first.split())
        if len(body) >= SHORTEST and 10 <= len(target) <= 200:
            yield {"source": body.strip(), "target": target, "of": found.name}


CORPORA: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
    "domain": _domain,
    "topic": _topic,
    "entities": _entities,
    "summaries": _summaries,
}
