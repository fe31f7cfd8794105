import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from domaintune.config.schema import DataConfig
from domaintune.data import unigram
from domaintune.data.documents import read_documents
from domaintune.data.encoder import CONTEXT
from domaintune.data.finding import Source
from domaintune.data.formats.choosing import fields_of
from domaintune.data.tokenizing import Tokens, tokenize
from domaintune.data.unigram import unigram_loss
from domaintune.data.windows import WindowDataset

ROWS = {
    "text": [{"text": f"the {word} of the {other}" * 3} for word in ("cat", "dog", "hat") for other in ("end", "day")],
    "instructions": [{"prompt": f"{number}+1=", "completion": f"{number + 1}"} for number in range(6)],
}


def tokens_of(folder: Path, tokenizer: Any, format: str) -> Tokens:
    source = Source(tiny.jsonl(folder / "rows.jsonl", *ROWS[format]), ".jsonl")
    documents = read_documents([source], fields_of(DataConfig(format=format)), str(folder / "cache"))
    return tokenize(documents, tokenizer, format, str(folder / "cache"))


def labels(tokens: Tokens, documents: list[int]) -> Counter[int]:
    """The tokens that are predicted, by the definition: all but a document's first, and no context."""
    found: Counter[int] = Counter()
    for first, end in zip(tokens.starts[documents], tokens.starts[np.array(documents) + 1], strict=True):
        pairs = zip(tokens.ids(first, end).tolist(), tokens.byte_counts(first, end).tolist(), strict=True)
        found.update(number for number, count in list(pairs)[1:] if count != CONTEXT)
    return found


@pytest.mark.parametrize("chunk", [5, 10_000])
@pytest.mark.parametrize("format", ["text", "instructions"])
def test_it_is_the_loss_of_the_frequencies_of_training(
    tmp_path: Path, tokenizer: Any, format: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unigram, "CHUNK", chunk)
    tokens = tokens_of(tmp_path, tokenizer, format)
    train, val = [0, 2, 3, 5], [1, 4]
    seen, asked, size = labels(tokens, train), labels(tokens, val), len(tokenizer)
    total = sum(seen.values()) + size
    expected = -sum(n * math.log((seen[token] + 1) / total) for token, n in asked.items()) / sum(asked.values())
    sides = [WindowDataset(tokens, np.array(side), block_size=8) for side in (train, val)]
    assert unigram_loss(*sides, size) == pytest.approx(expected, rel=1e-12)


def test_where_nothing_is_validated_there_is_none(tmp_path: Path, tokenizer: Any) -> None:
    tokens = tokens_of(tmp_path, tokenizer, "text")
    train, val = (WindowDataset(tokens, np.array(side, dtype=np.int64), 8) for side in ([0, 1], []))
    assert unigram_loss(train, val, len(tokenizer)) is None
