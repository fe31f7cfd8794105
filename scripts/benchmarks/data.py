"""Tokens a second from a file to batches: the classic map-and-concatenate, and this program.

All read the same .jsonl of made-up documents (pieces of Python's documentation of log-normal length: median 86 tokens,
mean 136, at most 1500), encode it with the same tokenizer and cut it into blocks of 512, each in an empty cache:

classic     Hugging Face `datasets`: load_dataset, map(tokenize), map(concatenate and cut), in one process
processes   the same with a process per core (num_proc)
domaintune  read, leave copies out, split, tokenize, pack without mixing documents, account for every token

Importing the libraries and opening the tokenizer are not counted.
"""

import argparse
import json
import os
import random
import tempfile
import time
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.memory import peak_memory_gb

BLOCK_SIZE = 512
MEDIAN, MEAN, LONGEST = 86, 136, 1500  # tokens of a document
CHARACTERS = 2.85  # of a token


def make_corpus(file: Path, megabytes: float, document_tokens: int | None = None) -> None:
    """Writes documents of together so many megabytes, each of about so many tokens; None: of log-normal length."""
    from domaintune.config.composing import default_config
    from domaintune.data.embedded import embedded_corpus

    source = embedded_corpus(default_config().paths.cache)
    text = "\n".join(json.loads(line)["text"] for line in source.read_text(encoding="utf-8").splitlines())
    draw, written = random.Random(0), 0.0
    with file.open("w", encoding="utf-8") as out:
        while written < megabytes * 1e6:
            tokens = draw.lognormvariate(np.log(MEDIAN), np.sqrt(2 * np.log(MEAN / MEDIAN)))
            length = int((document_tokens or np.clip(tokens, 2, LONGEST)) * CHARACTERS)
            place = draw.randrange(len(text) - length)
            written += out.write(json.dumps({"text": text[place : place + length]}) + "\n")


def embedded_tokenizer() -> Any:
    """The one of 8192 tokens that every measurement takes."""
    from domaintune.models.loading import load_tokenizer
    from domaintune.models.locating import locate
    from domaintune.tasks.causal_lm import CausalLM

    return load_tokenizer(locate("embedded:gpt2_tiny", needs_weights=False), CausalLM.head)


def classic(given: argparse.Namespace, processes: int | None = None) -> dict[str, Any]:
    """Hugging Face's usual two maps."""
    import datasets

    datasets.disable_progress_bars()
    tokenizer = embedded_tokenizer()

    def tokenize(rows: dict[str, list[str]]) -> Any:
        return tokenizer(rows["text"], verbose=False)

    def concatenate(rows: dict[str, list[list[int]]]) -> dict[str, list[list[int]]]:
        joined = {name: list(chain.from_iterable(lists)) for name, lists in rows.items()}
        whole = len(joined["input_ids"]) // BLOCK_SIZE * BLOCK_SIZE
        blocks = {name: [row[i : i + BLOCK_SIZE] for i in range(0, whole, BLOCK_SIZE)] for name, row in joined.items()}
        return {**blocks, "labels": [list(block) for block in blocks["input_ids"]]}

    with tempfile.TemporaryDirectory() as cache:
        started = time.perf_counter()
        rows = datasets.load_dataset("json", data_files=given.corpus, cache_dir=cache)["train"]
        rows = rows.map(tokenize, batched=True, remove_columns=rows.column_names, num_proc=processes)
        blocks = rows.map(concatenate, batched=True, num_proc=processes)
        seconds = time.perf_counter() - started
        return _result(len(blocks) * BLOCK_SIZE, seconds)


def with_processes(given: argparse.Namespace) -> dict[str, Any]:
    return classic(given, os.cpu_count())


def domaintune(given: argparse.Namespace) -> dict[str, Any]:
    """What a run does before its first batch."""
    from domaintune.config.schema import DataConfig
    from domaintune.data.language_datamodule import LanguageDataModule
    from domaintune.data.splitting import read_splits

    tokenizer = embedded_tokenizer()
    with tempfile.TemporaryDirectory() as cache:
        config = DataConfig(path=given.corpus, block_size=BLOCK_SIZE)
        started = time.perf_counter()
        data = LanguageDataModule(config, read_splits(config, cache), tokenizer, 0, cache)
        accounts = data.accounts()
        seconds = time.perf_counter() - started
        efficiency = accounts["train"].packing_efficiency
        return {**_result(sum(account.tokens for account in accounts.values()), seconds), "efficiency": efficiency}


def _result(tokens: int, seconds: float) -> dict[str, Any]:
    rate = tokens / seconds
    return {"tokens_per_second": rate, "rates": [rate], "peak_memory_gb": peak_memory_gb()}


METHODS = {"classic": classic, "processes": with_processes, "domaintune": domaintune}
