"""What the comparison with Hugging Face's Trainer counts, and what it makes of it."""

import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import families
import numpy as np
import pytest
from transformers import AutoTokenizer

sys.path.append(str(Path(__file__).parents[2] / "scripts"))

from benchmarks import classify


def runs(scores: list[float], training: list[float]) -> list[dict[str, float]]:
    return [
        {"score": score, "training_seconds": seconds, "process_seconds": seconds + 10, "peak_memory_gb": 1.0}
        for score, seconds in zip(scores, training, strict=True)
    ]


def test_means_errors_and_ratios_of_rounds() -> None:
    theirs, ours = runs([0.90, 0.92, 0.94], [100, 100, 200]), runs([0.91, 0.91, 0.91], [50, 40, 120])
    rows = classify.summary({"trainer": theirs, "domaintune": ours})
    assert rows["trainer"]["score"] == pytest.approx(0.92)
    assert rows["trainer"]["standard_error"] == pytest.approx(0.02 / math.sqrt(3))
    assert (rows["trainer"]["training_share"], rows["domaintune"]["training_share"]) == (1, 0.5)
    assert rows["domaintune"]["process_share"] == pytest.approx(60 / 110)
    assert rows["domaintune"]["training_seconds"] == 50


@pytest.mark.parametrize(("ours", "reached"), [(0.95, True), (0.91, True), (0.905, False)])
def test_reached_is_at_most_one_standard_error_below(ours: float, reached: bool) -> None:
    rows = classify.summary({"trainer": runs([0.90, 0.92, 0.94], [1] * 3), "domaintune": runs([ours] * 3, [1] * 3)})
    assert rows["domaintune"]["reached"] is reached


def test_of_one_seed_nothing_is_said_about_reaching(capsys: pytest.CaptureFixture[str]) -> None:
    rows = classify.summary({"trainer": runs([0.9], [10]), "domaintune": runs([0.9], [5])})
    assert rows["domaintune"]["reached"] is None
    classify.show({"spam": rows}, 1)
    assert "spam, macro F1" in capsys.readouterr().out


def test_a_picture_is_drawn(tmp_path: Path) -> None:
    rows = classify.summary({"trainer": runs([0.9], [10]), "domaintune": runs([0.9], [5])})
    classify.draw({"spam": rows, "entities": rows}, str(tmp_path / "found.png"))
    assert (tmp_path / "found.png").read_bytes().startswith(b"\x89PNG")


def test_a_tag_stands_at_the_first_token_of_its_word(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(families.save_family("bert", tmp_path))
    row: dict[str, Any] = {"tokens": ["good", "ti", "Bob"], "tags": ["O", "B-thing", "B-person"]}
    (found,) = classify.encoded([row], tokenizer, {"O": 0, "B-person": 1, "B-thing": 2}, longest=16)
    pieces = tokenizer.convert_ids_to_tokens(found["input_ids"])
    assert pieces == ["[CLS]", "good", "t", "##i", "bob", "[SEP]"]
    assert found["labels"] == [-100, 0, 2, -100, 1, -100]
    (short,) = classify.encoded([row], tokenizer, {"O": 0, "B-person": 1, "B-thing": 2}, longest=4)
    assert short["labels"] == [-100, 0, 2, -100]


def test_a_text_has_its_label(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(families.save_family("bert", tmp_path))
    (found,) = classify.encoded([{"text": "good film", "label": "b"}], tokenizer, {"a": 0, "b": 1}, longest=3)
    assert (len(found["input_ids"]), found["label"]) == (3, 1)


def test_f1_of_classes_and_of_entities() -> None:
    logits = np.eye(2)[[0, 0, 1, 1]]
    found = SimpleNamespace(predictions=logits, label_ids=np.array([0, 1, 1, 1]))
    assert classify.f1(found, ("ham", "spam"))["f1"] == pytest.approx((2 / 3 + 4 / 5) / 2)
    names = ("O", "B-x", "I-x")
    logits = np.eye(3)[[[0, 1, 0, 0], [1, 0, 2, 0]]]  # the second row's last token is no word's first
    found = SimpleNamespace(predictions=logits, label_ids=np.array([[0, 1, 2, 0], [1, -100, 2, -100]]))
    assert classify.f1(found, names)["f1"] == pytest.approx(0.5)


def test_a_measurement_is_told_its_set_and_seed() -> None:
    given = SimpleNamespace(sample=60, mails=None, checkpoint=None)
    assert classify.settings(given, "entities", 2) == ["--set", "entities", "--seed", "2", "--sample", "60"]  # type: ignore[arg-type]
