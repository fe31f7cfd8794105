import random
import warnings
from collections.abc import Callable
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from families import enlarge
from seqeval.metrics import f1_score, precision_score, recall_score
from seqeval.metrics.sequence_labeling import get_entities
from transformers import pipeline

from domaintune.data.formats.entities import cut_at_words, word_numbers
from domaintune.preparing import prepare
from domaintune.tasks.metrics import count_entities, entities_of, entity_metrics
from domaintune.training import build, evaluate, train

KINDS = ["person", "place", "x-y"]
TAGS = ["O", *(f"{prefix}-{kind}" for prefix in "BI" for kind in KINDS)]
ALL_TAGS = ["O", *(f"{prefix}-{kind}" for prefix in "BIES" for kind in KINDS)]


def sentences(number: int, tags: list[str], seed: int) -> list[list[str]]:
    draw = random.Random(seed)
    return [[draw.choice(tags) for _ in range(draw.randint(1, 25))] for _ in range(number)]


@pytest.mark.parametrize("tags", [TAGS, ALL_TAGS], ids=["BIO", "BIOES"])
def test_entities_are_those_of_seqeval_on_a_thousand_random_sentences(tags: list[str]) -> None:
    """Drawn tag by tag, so most of them are broken."""
    true, given = sentences(1000, tags, seed=1), sentences(1000, tags, seed=2)
    given = [(other * len(one))[: len(one)] for one, other in zip(true, given, strict=True)]
    given = [one if number % 3 == 0 else other for number, (one, other) in enumerate(zip(true, given, strict=True))]
    for sentence in [*true, *given]:
        assert entities_of(sentence) == set(get_entities(sentence))
    got = entity_metrics(1.0, 2.0, count_entities(list(zip(true, given, strict=True))), KINDS)
    assert got["precision"] == pytest.approx(precision_score(true, given))
    assert got["recall"] == pytest.approx(recall_score(true, given))
    assert got["f1"] == pytest.approx(f1_score(true, given))
    assert 0.3 < got["f1"] < 0.9
    by_kind = dict(zip(KINDS, f1_score(true, given, average=None), strict=True))
    assert {kind: got[f"f1/{kind}"] for kind in KINDS} == pytest.approx(by_kind)


def test_without_an_entity_all_figures_are_zero() -> None:
    got = entity_metrics(1.0, 2.0, count_entities([(["O", "O"], ["O", "O"])]), KINDS)
    assert got["precision"] == got["recall"] == got["f1"] == 0.0


def test_a_word_is_numbered_at_its_first_token() -> None:
    words = ["un", "believ", "a"]  # tokens: un | be liev | a, each with the space before it or not
    assert word_numbers(words, [(0, 2), (2, 5), (5, 9), (9, 11)]).tolist() == [0, 1, -1, 2]
    assert word_numbers(words, [(0, 2), (3, 5), (5, 9), (10, 11)]).tolist() == [0, 1, -1, 2]
    assert word_numbers(words, [(0, 2), (2, 3), (3, 9), (10, 11)]).tolist() == [0, -1, 1, 2], "a token of a space alone"
    assert word_numbers(words, [(0, 2), (10, 11)]).tolist() == [0, 2], "a word that the tokenizer dropped"


def test_long_sentences_are_cut_before_words() -> None:
    numbers = np.array([0, -1, 1, 2, -1, -1, 3, 4], dtype=np.int32)
    assert cut_at_words(numbers, 8) == [(0, 8)]
    assert cut_at_words(numbers, 4) == [(0, 3), (3, 7), (7, 8)]
    assert cut_at_words(numbers, 2) == [(0, 2), (2, 3), (3, 5), (5, 7), (7, 8)], "a word of three tokens is cut"


def made(prepared: Callable[..., Any], family: str, *overrides: str) -> tuple[Any, Any, Any]:
    given, _ = prepared("token_classification", family, *overrides)
    data, task = build(given, L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False))
    return given, data, task.eval()


@pytest.mark.parametrize("block_size", [32, 9])
@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2", "llama"])
def test_every_word_has_its_tag_at_one_token(prepared: Callable[..., Any], family: str, block_size: int) -> None:
    _, data, _ = made(prepared, family, f"data.block_size={block_size}")
    dataset = data.datasets["train"]
    found: dict[int, list[str]] = {}
    for index in range(len(dataset)):
        labels = dataset.example(index)["labels"]
        found.setdefault(int(dataset.of[index]), []).extend(data.labels.names[tag] for tag in labels[labels >= 0])
        assert len(labels) <= block_size
    by_document = {int(place): dataset.documents_of(index)[0] for index, place in enumerate(dataset.of)}
    rows = {place: data.splits.documents[number] for place, number in by_document.items()}
    assert found == {place: row["tags"] for place, row in rows.items()}
    counts = [int((dataset.words_of(index) >= 0).sum()) for index in range(len(dataset))]
    assert dataset.words_in.tolist() == counts
    assert (len(dataset) > len(dataset.documents)) == (block_size == 9)
    assert data.account()["train"]["cut_documents"] == (dataset.cut_documents if block_size == 9 else 0)


@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2"])
def test_batch_size_and_padding_do_not_move_a_prediction(prepared: Callable[..., Any], family: str) -> None:
    _, data, task = made(prepared, family)
    enlarge(task)
    examples = [data.datasets["train"].example(index) for index in range(16)]
    with torch.no_grad():
        _, _, together = task(data._collation("val")([[example] for example in examples]))
        for row, example in enumerate(examples):
            _, _, alone = task(data._collation("val")([[example]]))
            assert (together[row, : alone.shape[1]] - alone[0]).abs().max() < 1e-5 * max(1, alone.abs().max())
    assert together.flatten(0, 1).std(0).max() > 1e-1, "they differ from word to word"


def test_a_cut_sentence_is_measured_as_a_whole(prepared: Callable[..., Any]) -> None:
    """A model that gives the true tags has a perfect score, wherever sentences are cut."""
    _, data, task = made(prepared, "bert", "data.block_size=6")
    task.trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    task.trainer.datamodule = data
    task.begin_evaluation("val")
    dataset = data.datasets["val"]
    for index in range(len(dataset)):
        labels = dataset.example(index)["labels"]
        task._windows.append(index)
        task._guesses.append(labels[labels >= 0])
    got = task.end_evaluation("val")
    assert got["f1"] == got["precision"] == got["recall"] == 1.0
    del task._windows[0], task._guesses[0]
    assert task.end_evaluation("val")["f1"] == 1.0, "a sentence that was not seen whole is left out"


def test_a_run_learns_and_its_export_finds_the_same(prepared: Callable[..., Any]) -> None:
    settings = ["trainer.max_steps=60", "trainer.max_epochs=-1", "trainer.val_check_interval=20"]
    given, run = prepared("token_classification", "bert", *settings)
    train(given, run)
    assert run.result["metrics"]["after"]["val/f1"] > 0.9 > run.result["metrics"]["before"]["val/f1"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        find = pipeline("token-classification", model=str(run.export), aggregation_strategy="simple")
        found = find("it was nice in Paris")
    assert [(entity["entity_group"], entity["word"]) for entity in found] == [("place", "paris")]
    given.config.model.checkpoint = str(run.export)
    metrics, words, unit, _ = evaluate(prepare(given.config))
    assert (unit, words > 0) == ("words", True)
    assert metrics["test/f1"] > 0.5
