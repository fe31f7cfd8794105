"""Rows of the tasks beside the language model: what a person wrote is text, and what becomes no token is told."""

import copy
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tiny
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram
from transformers import PreTrainedTokenizerFast

from domaintune.config.schema import Config, DataConfig, PathsConfig
from domaintune.config.tasks import declared_tasks
from domaintune.data.labelling import read_labels
from domaintune.data.splitting import read_splits
from domaintune.errors import UsageError
from domaintune.tasks.base import task_class

FORMATS = ("labels", "entities", "pairs", "text")


@pytest.fixture
def tokenizer() -> Any:
    """As T5's: its model has the names of special tokens in its vocabulary. A normalizer drops zero-width spaces."""
    pieces = ["<pad>", "</s>", "<unk>", "<mask>", "\u2581", *"abcdefghijklmnopqrstuvwxyz0123456789<>/-"]
    made = Tokenizer(Unigram([(piece, -1.0 * (place > 3)) for place, piece in enumerate(pieces)], unk_id=2))
    made.normalizer = normalizers.Replace("\u200b", "")
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    names = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>"}
    return PreTrainedTokenizerFast(tokenizer_object=made, **names)


def built(folder: Path, tokenizer: Any, format: str, *rows: Any, **settings: Any) -> Any:
    config = DataConfig(format=format, path=tiny.jsonl(folder / "rows.jsonl", *rows), **settings)
    splits = read_splits(config, str(folder / "cache"))
    labels = read_labels(splits, format) if format in ("labels", "entities") else None
    made: Config = Config(data=config, paths=PathsConfig(cache=str(folder / "cache")))
    task = next(each for each in declared_tasks().values() if each.learns_from == [format])
    return task_class(task).make_data(made, splits, labels, copy.deepcopy(tokenizer))


def row(format: str, text: str, number: int = 0) -> dict[str, Any]:
    return {
        "labels": {"text": text, "label": "ab"[number % 2]},
        "entities": {"tokens": text.split(" "), "tags": ["B-X"] + ["O"] * text.count(" ")},
        "pairs": {"source": text, "target": text},
        "text": {"text": text},
    }[format]


@pytest.mark.parametrize("format", FORMATS)
def test_the_names_of_special_tokens_stay_text(tmp_path: Path, tokenizer: Any, format: str) -> None:
    rows = [row(format, f"say </s> to {number} <mask> and <pad>x", number) for number in range(40)]
    tokens = built(tmp_path, tokenizer, format, *rows).tokens
    assert not set(tokenizer.all_special_ids) & set(tokens.ids(0, int(tokens.starts[-1])).tolist())
    shown = {
        tokenizer.decode(tokens.ids(a, b)).replace("\u2581", " ").replace("  ", " ")
        for a, b in pairwise(tokens.starts.tolist())
    }
    assert all("</s>" in text.replace(" ", "") and "<mask>" in text.replace(" ", "") for text in shown)


@pytest.mark.parametrize("format", FORMATS)
def test_a_script_that_is_unknown_signs_to_the_tokenizer_is_told(tmp_path: Path, tokenizer: Any, format: str) -> None:
    for text, told in (("今天 天氣 如何 {}", True), ("the weather {}", False)):
        rows = [row(format, text.format(number), number) for number in range(40)]
        notes = built(tmp_path, tokenizer, format, *rows).notes()
        assert any("of its tokens are <unk>" in note for note in notes) is told


@pytest.mark.parametrize("format", FORMATS)
def test_rows_of_no_token_are_left_out_of_the_account_and_the_classes(
    tmp_path: Path, tokenizer: Any, format: str
) -> None:
    rows = [row(format, f"text {number}", number) for number in range(40)]
    data = built(tmp_path, tokenizer, format, *rows, row(format, "\u200b"), row(format, "\u200b\u200b"))
    assert data.account()["left_out"]["no tokens"]["rows"] == 2
    assert data.account()["left_out"]["no tokens"]["places"] == [f"{tmp_path}/rows.jsonl:{line}" for line in (41, 42)]
    accounts = data.accounts()
    assert sum(account.documents for account in accounts.values()) == 40
    if format == "labels":
        assert sum(sum(account.classes.values()) for account in accounts.values()) == 40
    with pytest.raises(UsageError, match=r"rows\.jsonl:41: the tokenizer makes no token of it"):
        built(tmp_path, tokenizer, format, *rows, row(format, "\u200b"), strict=True)


def test_a_pair_needs_a_token_on_each_side_whatever_the_prefix(tmp_path: Path, tokenizer: Any) -> None:
    rows = [row("pairs", f"text {number}") for number in range(40)]
    odd = [{"source": "\u200b", "target": "some"}, {"source": "some", "target": "\u200b"}]
    data = built(tmp_path, tokenizer, "pairs", *rows, *odd, prefix="make short: ")
    assert data.account()["left_out"]["no tokens"]["places"] == [f"{tmp_path}/rows.jsonl:{line}" for line in (41, 42)]


def test_a_side_of_which_no_token_is_left_is_refused_with_the_account(tmp_path: Path, tokenizer: Any) -> None:
    val = tiny.jsonl(tmp_path / "val.jsonl", *("\u200b" * number for number in range(1, 4)))
    rows = [row("text", f"text {number}") for number in range(40)]
    match = (
        r"nothing is left of the val side; left out are no tokens 3 \(.*val\.jsonl:1, .*: the tokenizer makes no token"
    )
    with pytest.raises(UsageError, match=match):
        built(tmp_path, tokenizer, "text", *rows, val_path=val)


def test_words_without_a_token_are_counted(tmp_path: Path, tokenizer: Any) -> None:
    rows = [row("entities", f"a \u200b {number}" + " \u200b" * (number % 2)) for number in range(40)]
    accounts = built(tmp_path, tokenizer, "entities", *rows).accounts().values()
    assert sum(account.words_without_tokens for account in accounts) == 60
    assert sum(account.predicted_tokens for account in accounts) == 80
