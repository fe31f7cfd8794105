"""What is read anew after a change, and what is not: one row per change, one column per kind of cache entry."""

import copy
import gzip
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
from tokenizers import Tokenizer

from domaintune.config.schema import DataConfig
from domaintune.data import deduplicating, documents, tokenizing
from domaintune.data.chatting import PLAIN_TEMPLATE
from domaintune.data.splitting import read_splits
from domaintune.data.tokenizing import tokenize

KINDS = {"D": "documents", "T": "tokens", "N": "near_duplicates"}
DRAW = random.Random(0)
WORDS = "the and of a file is read when it was changed before anything else may be said about lines in it".split()


def sentence() -> str:
    return " ".join(DRAW.choices(WORDS, k=12))


ROWS = [{"text": sentence(), "other": sentence(), "author": f"{n % 7}"} for n in range(40)]
ROWS += [{**row, "text": f"{row['text']}!"} for row in ROWS[:20]]
TURNS = [{"role": "user", "content": "Is it?"}, {"role": "assistant", "content": "It is."}]
CHATS: list[dict[str, Any]] = [{"prompt": sentence(), "completion": sentence(), "short": "Yes."} for _ in range(30)]
CHATS += [{"prompt": f"{row['prompt']}!", "completion": row["completion"], "short": "No!"} for row in CHATS[:20]]
CHATS += [{"messages": [*TURNS, *TURNS]}]


class Run:
    """What a run reads with, to be changed."""

    def __init__(self, folder: Path, tokenizer: Any, patch: pytest.MonkeyPatch, base: str) -> None:
        self.folder, self.patch = folder, patch
        self.tokenizer = copy.deepcopy(tokenizer)
        self.tokenizer.chat_template = PLAIN_TEMPLATE
        a, b = tiny.jsonl(folder / "a.jsonl", *ROWS[:30]), tiny.jsonl(folder / "b.jsonl", *ROWS[30:])
        val, chats = tiny.jsonl(folder / "val.jsonl", *ROWS[:3]), tiny.jsonl(folder / "chats.jsonl", *CHATS)
        (folder / "c.txt").write_text("".join(f"{sentence()}\n\n" for _ in range(10)))
        own = {
            "texts": {"path": [a, b, f"{folder}/c.txt"], "val_path": val, "test_fraction": 0.3},
            "rows": {"path": [a, b], "val_fraction": 0.3, "test_fraction": 0.3},
            "chats": {"path": [chats], "format": "instructions", "val_fraction": 0.3, "test_fraction": 0.3},
        }
        self.settings: dict[str, Any] = {"dedup": "near", **own[base]}

    def rename(self, old: str, new: str) -> None:
        """A file of data.path, which names it at the same place."""
        (self.folder / new).parent.mkdir(exist_ok=True)
        (self.folder / old).rename(self.folder / new)
        self.settings["path"] = [
            str(self.folder / new) if path == str(self.folder / old) else path for path in self.settings["path"]
        ]

    def rewrite(self, file: str, edit: Callable[[bytes], bytes]) -> None:
        (self.folder / file).write_bytes(edit((self.folder / file).read_bytes()))

    def backend(self, edit: Callable[[dict[str, Any]], None]) -> None:
        """Edits the tokenizer's own JSON."""
        parts = json.loads(self.tokenizer.backend_tokenizer.to_str())
        edit(parts)
        self.tokenizer._tokenizer = Tokenizer.from_str(json.dumps(parts))

    def results(self, cache: Path) -> dict[str, Any]:
        """All that the caches give."""
        config = DataConfig(**self.settings)
        splits = read_splits(config, str(cache))
        tokens = tokenize(splits.documents, self.tokenizer, config.format, str(cache))
        number = int(tokens.starts[-1])
        return {
            "texts": list(splits.documents.records(0, len(splits.documents))),
            "places": [splits.documents.place(document) for document in range(len(splits.documents))],
            "sides": splits.side.tolist(),
            "starts": tokens.starts.tolist(),
            "ids": tokens.ids(0, number).tolist(),
            "byte counts": tokens.byte_counts(0, number).tolist(),
            "has context": tokens.has_context,
        }


def entries(cache: Path) -> dict[str, int]:
    return {letter: sum(entry.is_dir() for entry in (cache / kind).iterdir()) for letter, kind in KINDS.items()}


def setting(**settings: Any) -> Callable[[Run], None]:
    return lambda run: run.settings.update(settings)


def add_file(run: Run) -> None:
    run.settings["path"].append(tiny.jsonl(run.folder / "d.jsonl", "one more"))


def val_into_path(run: Run) -> None:
    run.settings["path"].append(run.settings.pop("val_path"))


def val_as_test(run: Run) -> None:
    run.settings |= {"test_path": run.settings.pop("val_path"), "val_fraction": 0.3}


def pack(run: Run) -> None:
    run.rename("a.jsonl", "a.jsonl.gz")
    run.rewrite("a.jsonl.gz", gzip.compress)


def swap_two_words(parts: dict[str, Any]) -> None:
    vocabulary = parts["model"]["vocab"]
    vocabulary["e"], vocabulary["t"] = vocabulary["t"], vocabulary["e"]


def lower(parts: dict[str, Any]) -> None:
    parts["normalizer"] = {"type": "Lowercase"}


def template(run: Run) -> None:
    run.tokenizer.chat_template = "{% for message in messages %}[{{ message['content'] }}]{% endfor %}"


def cut(run: Run) -> None:
    run.tokenizer(["some text", "a"], truncation=True, max_length=3)
    run.tokenizer.backend_tokenizer.enable_truncation(3)
    run.tokenizer.backend_tokenizer.enable_padding(length=5)


def load_again(run: Run) -> None:
    run.tokenizer.save_pretrained(run.folder / "tokenizer")
    run.tokenizer = type(run.tokenizer).from_pretrained(run.folder / "tokenizer")


def constant(module: Any) -> Callable[[Run], None]:
    return lambda run: run.patch.setattr(module, "FORMAT", module.FORMAT + 1)


def attribute(name: str, value: str) -> Callable[[Run], None]:
    return lambda run: setattr(run.tokenizer, name, value)


def swap(run: Run) -> None:
    run.rename("a.jsonl", "x.jsonl")
    run.rename("b.jsonl", "a.jsonl")
    run.rename("x.jsonl", "b.jsonl")
    run.settings["path"].reverse()


def text_of(run: Run) -> None:
    run.rewrite("chats.jsonl", lambda raw: raw[: raw.index(b'{"messages"')])
    run.settings |= {"format": "text", "text_column": "prompt"}


def relative(run: Run) -> None:
    run.patch.chdir(run.folder)
    run.settings["path"] = ["a.jsonl", "./b.jsonl", "c.txt"]


# what changes, in which files and settings, and the kinds of entry that are made anew
CHANGES: list[tuple[str, str, Callable[[Run], Any], str]] = [
    ("a byte", "texts", lambda run: run.rewrite("b.jsonl", lambda raw: raw.replace(b"the", b"tha", 1)), "DTN"),
    ("a byte of the last file", "texts", lambda run: run.rewrite("c.txt", lambda raw: raw[:-4] + b"x\n\n"), "DTN"),
    ("a byte of val_path", "texts", lambda run: run.rewrite("val.jsonl", lambda raw: b" " + raw), "DTN"),
    ("a row more", "rows", lambda run: run.rewrite("a.jsonl", lambda raw: raw + b'{"text": "new"}\n'), "DTN"),
    ("a row less", "rows", lambda run: run.rewrite("a.jsonl", lambda raw: raw[raw.index(b"\n") + 1 :]), "DTN"),
    ("a file more", "texts", add_file, "DTN"),
    ("a file less", "texts", lambda run: run.settings["path"].pop(1), "DTN"),
    ("a file twice", "texts", lambda run: run.settings["path"].append(run.settings["path"][0]), "DTN"),
    ("the order of files", "texts", lambda run: run.settings["path"].reverse(), "DTN"),
    ("the files' contents exchanged", "rows", swap, "DTN"),
    ("a suffix", "texts", lambda run: run.rename("c.txt", "c.md"), "DTN"),
    ("packed", "texts", pack, "DTN"),
    ("unit", "texts", setting(unit="line"), "DTN"),
    ("unit of rows", "rows", setting(unit="line"), ""),
    ("text_column of chats", "chats", setting(text_column="other"), ""),
    ("text_column", "rows", setting(text_column="other"), "DTN"),
    ("group_column", "rows", setting(group_column="author"), "DTN"),
    ("columns", "chats", setting(columns={"completion": "short"}), "DTN"),
    ("format", "chats", text_of, "DTN"),
    ("roles", "chats", setting(roles={"narrator": "user"}), "DTN"),
    ("strict", "rows", setting(strict=True), "DTN"),
    ("val_path into path", "texts", val_into_path, "DTN"),
    ("val_path as test_path", "texts", val_as_test, "DTN"),
    ("our reading", "texts", constant(documents), "DTN"),
    ("our tokens", "texts", constant(tokenizing), "T"),
    ("our comparing", "texts", constant(deduplicating), "N"),
    ("a token added", "texts", lambda run: run.tokenizer.add_tokens(["file is"]), "T"),
    ("a special token added", "chats", lambda run: run.tokenizer.add_special_tokens({"pad_token": "<pad>"}), "T"),
    ("two words of the vocabulary", "texts", lambda run: run.backend(swap_two_words), "T"),
    ("a merge less", "texts", lambda run: run.backend(lambda parts: parts["model"]["merges"].pop(0)), "T"),
    ("the normalizer", "texts", lambda run: run.backend(lower), "T"),
    ("the end of text", "texts", attribute("eos_token", "e"), "T"),
    ("the end of text of chats", "chats", attribute("eos_token", "e"), "T"),
    ("the chat template", "chats", template, "T"),
    ("split_seed", "rows", setting(split_seed=1), "N"),
    ("val_fraction", "rows", setting(val_fraction=0.5), "N"),
    ("test_fraction", "texts", setting(test_fraction=0.5), "N"),
    ("nothing", "texts", setting(), ""),
    ("the chat template, of plain text", "texts", template, ""),
    ("a file's name", "texts", lambda run: run.rename("a.jsonl", "z.jsonl"), ""),
    ("a file's folder", "texts", lambda run: run.rename("a.jsonl", "folder/a.jsonl"), ""),
    ("a file's time", "texts", lambda run: os.utime(run.folder / "a.jsonl", (1, 1)), ""),
    ("the folder we are in", "texts", lambda run: run.patch.chdir("/"), ""),
    ("the way a path is written", "texts", relative, ""),
    ("the default of unit", "texts", setting(unit="file"), ""),
    ("the default names of columns", "chats", setting(columns={"prompt": "prompt"}), ""),
    ("roles of texts", "texts", setting(roles={"narrator": "user"}), ""),
    ("batch_size", "texts", setting(batch_size=3), ""),
    ("block_size", "texts", setting(block_size=16), ""),
    ("batching", "texts", setting(batching="padded"), ""),
    ("num_workers", "texts", setting(num_workers=2), ""),
    ("val_fraction beside val_path", "texts", setting(val_fraction=0.7), "N"),  # test documents stand behind it
    ("a tokenizer that cuts and pads", "texts", cut, ""),
    ("a tokenizer that cuts and pads chats", "chats", cut, ""),
    ("the tokenizer's folder", "texts", load_again, ""),
    ("the tokenizer's threads", "texts", lambda run: run.patch.setenv("TOKENIZERS_PARALLELISM", "true"), ""),
    ("a tokenizer already used", "texts", lambda run: run.tokenizer("<|endoftext|> text"), ""),
]


@pytest.mark.parametrize(("change", "base", "make", "anew"), CHANGES, ids=[row[0] for row in CHANGES])
def test_what_a_change_makes_anew(
    tmp_path: Path,
    tokenizer: Any,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
    base: str,
    make: Callable[[Run], Any],
    anew: str,
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # takes most of the time, and no power fails here
    run = Run(tmp_path, tokenizer, monkeypatch, base)
    before = run.results(tmp_path / "cache")
    assert entries(tmp_path / "cache") == {"D": 1, "T": 1, "N": 1}
    make(run)
    after = run.results(tmp_path / "cache")
    assert {letter for letter, number in entries(tmp_path / "cache").items() if number == 2} == set(anew)
    assert after == run.results(tmp_path / "fresh"), "stale"
    if not anew:
        assert {**after, "places": None} == {**before, "places": None}
