"""A task of a person's own is two files: a leaf that declares it, and a module with its class."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import folder_of, result_of

LEAF = """
defaults: [_base]
_target_: sureness.Sureness
name: sureness
learns_from: [labels]
models: [encoder, decoder]
head: ForSequenceClassification
metrics: {val/loss: min, val/brier: min}
measured_with: {val/loss: [task.class_weights]}
predicts: [label, surest]
pipeline: text-classification
padded_because: a label is read from a row of its own
monitor: val/brier
"""
MODULE = '''
import torch

from domaintune.tasks.sequence_classification import SequenceClassification


class Sureness(SequenceClassification):
    """Labels, measured by how far the chances are from the truth (Brier, 1950)."""

    def begin_evaluation(self, side):
        self._sums = self.zeros(3)

    def validation_step(self, batch, batch_idx):
        loss, weight, logits = self(batch)
        truth = torch.nn.functional.one_hot(batch["labels"], logits.shape[1])
        brier = (logits.softmax(1) - truth).square().sum()
        self._sums += torch.stack([value.to(self._sums) for value in (loss, weight, brier)])

    def end_evaluation(self, side):
        loss, weight, brier = self._sums.tolist()
        return {"loss": loss / weight, "brier": brier / weight}

    @classmethod
    def predict(cls, predictor, rows):
        for answer in super().predict(predictor, rows):
            yield {"label": answer["label"], "surest": max(answer["probabilities"].values())}
'''


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the two files, and rows to learn from."""
    folder = tmp_path_factory.mktemp("mine")
    (folder / "task").mkdir()
    (folder / "task" / "sureness.yaml").write_text(LEAF)
    (folder / "sureness.py").write_text(MODULE)
    rows = [{"text": f"{word} number {n}", "label": word} for n in range(60) for word in ("good", "bad")]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def test_an_own_task_trains_and_is_asked_measured_and_ranked(
    run_with_own: Callable[..., str], mine: Path, command: Any, small: list[str], tmp_path: Path
) -> None:
    own = ["--config-dir", str(mine), "data=sentiment", "task=sureness", f"data.path={mine / 'rows.jsonl'}"]
    rest = ["data.block_size=64"] + [
        each for each in small if each.split("=")[0].startswith(("model", "trainer", "paths"))
    ]
    run_with_own("train.py", "name=sure", *own, *rest)
    metrics = result_of(folder_of(command, "sure"))["metrics"]
    assert metrics["after"].keys() == {"val/loss", "val/brier"}
    assert metrics["after"]["val/brier"] <= metrics["before"]["val/brier"]
    assert "pipeline_tag: text-classification" in (folder_of(command, "sure") / "export" / "README.md").read_text()
    asked = tmp_path / "asked.jsonl"
    run_with_own("scripts/predict.py", "run=sure", f"input={mine / 'rows.jsonl'}", f"output={asked}")
    rows = [json.loads(line) for line in asked.read_text().splitlines()]
    assert rows[0].keys() == {"row", "text", "input.label", "label", "surest"}
    assert "brier" in run_with_own("scripts/evaluate.py", "run=sure")
    assert "its task, sureness, does not write text" in run_with_own(
        "scripts/generate.py", "run=sure", "prompt=a", code=2
    )
    run_with_own("train.py", "-m", "name=sures", *own, *rest, "optim.lr=1e-4,1e-3")
    assert "val/brier" in run_with_own("scripts/leaderboard.py", "name=sures")


def test_what_does_not_fit_an_own_task_is_told(run_with_own: Callable[..., str], mine: Path) -> None:
    own = ["--config-dir", str(mine), "task=sureness"]
    told = run_with_own("train.py", *own, "task.monitor=val/f1", code=2)
    assert "task.monitor=val/f1: must be one of val/loss, val/brier with task=sureness" in told
    assert "task=sureness does not learn from data.format=text, which is of task=causal_lm or masked_lm" in told
    assert "sequence_classification or sureness" in run_with_own(
        "train.py", *own[:2], "data=sentiment", "data.path=a", "task=seq2seq", code=2
    )
