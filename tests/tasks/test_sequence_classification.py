import csv
import re
import types
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from families import enlarge, rows
from sklearn.metrics import accuracy_score, f1_score
from transformers import pipeline

from domaintune.config.wording import escaped
from domaintune.data.examples import Example, collate_examples
from domaintune.preparing import prepare
from domaintune.tasks.metrics import classification_metrics
from domaintune.tasks.sequence_classification import SequenceClassification, balanced_weights
from domaintune.trainers import loggers
from domaintune.training import build, evaluate, train

NAMES = ["a", "b", "c"]
FAMILIES = ["gpt2", "llama", "bert", "roberta", "distilbert"]


@pytest.fixture
def built(prepared: Callable[..., Any]) -> Callable[..., tuple[Any, Any]]:
    """Data and task, in evaluation mode."""

    def made(family: str, *overrides: str, of: Any = None) -> tuple[Any, Any]:
        given, _ = prepared("sequence_classification", family, *overrides, of=of)
        data, task = build(given, L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False))
        return data, task.eval()

    return made


def collate(data: Any, examples: list[Example]) -> Any:
    return data._collation("val")([[example] for example in examples])


@pytest.mark.parametrize("family", FAMILIES)
def test_batch_size_and_padding_do_not_move_a_prediction(built: Callable[..., Any], family: str) -> None:
    data, task = built(family)
    enlarge(task)
    train_set = data.datasets["train"]
    examples = [train_set.example(index) for index in range(24)]
    with torch.no_grad():
        together = task.logits(collate(data, examples))
        alone = torch.cat([task.logits(collate(data, [example])) for example in examples])
    assert len({len(example["input_ids"]) for example in examples}) > 3, "of several lengths"
    assert (together - alone).abs().max() < 1e-5 * max(1, alone.abs().max())
    assert together.std(0).max() > 1e-2, "they differ from text to text"


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_text_that_ends_in_the_padding_token_is_read_to_its_end(built: Callable[..., Any], family: str) -> None:
    """transformers takes the last token that is not the padding token, which here is another one."""
    data, task = built(family)
    pad = task.model.config.pad_token_id
    ids = torch.tensor([5, 6, 7, pad])
    examples: list[Example] = [
        {"input_ids": ids, "labels": torch.tensor(0), "window": 0},
        {"input_ids": torch.arange(5, 15), "labels": torch.tensor(1), "window": 1},
    ]
    with torch.no_grad():
        first = task.logits(collate(data, examples))[0]
        states = task.model.base_model(input_ids=ids[None]).last_hidden_state
        assert torch.allclose(first, task.model.score(states)[0, -1], atol=1e-5)
        mistaken = task.model(input_ids=ids[None], attention_mask=torch.ones(1, 4, dtype=torch.long)).logits[0]
    assert not torch.allclose(first, mistaken, atol=1e-5)


def gradient(task: Any, batches: list[Any]) -> torch.Tensor:
    """Of an optimizer step over these micro-batches."""
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=1,
        accumulate_grad_batches=len(batches),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader: Any = torch.utils.data.DataLoader(batches, batch_size=None)
    trainer.fit(task, loader)
    return torch.cat([weight.grad.flatten() for weight in task.parameters() if weight.grad is not None])


@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_the_gradient_of_a_step_does_not_depend_on_how_it_is_cut(built: Callable[..., Any], weights: str) -> None:
    gradients = []
    for cut in ([16], [8, 8], [1, 2, 3, 10], [1] * 16):
        data, task = built("bert", f"task.class_weights={weights}", "optim.lr=1e-30")
        enlarge(task)
        examples = [data.datasets["train"].example(index) for index in range(16)]
        bounds = np.cumsum([0, *cut])
        batches = [{"parts": [collate(data, examples[a:b])]} for a, b in pairwise(bounds)]
        gradients.append(gradient(task, batches))
    data, task = built("bert", f"task.class_weights={weights}", "optim.lr=1e-30")
    enlarge(task)
    rows = [[data.datasets["train"].example(index)] for index in range(16)]
    batch = data._collation("train")(rows, pass_tokens=1)
    assert len(batch["parts"]) > 1
    gradients.append(gradient(task, [batch]))
    for other in gradients[1:]:
        assert (other - gradients[0]).norm() < 1e-5 * gradients[0].norm()


def test_weighted_losses_are_divided_as_torch_does(built: Callable[..., Any]) -> None:
    data, task = built("bert", "task.class_weights=balanced")
    batch = collate(data, [data.datasets["train"].example(index) for index in range(16)])
    with torch.no_grad():
        loss, weight, logits = task(batch)
    assert float(loss / weight) == pytest.approx(float(F.cross_entropy(logits, batch["labels"], task.class_weights)))
    assert task.class_weights.tolist() != [1.0, 1.0]


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    labels = ["a"] * 5 + ["b"] * 20 + ["c"] * 1
    wanted = compute_class_weight("balanced", classes=np.array(NAMES), y=labels)
    assert balanced_weights({"a": 5, "b": 20, "c": 1}, False, 26).tolist() == pytest.approx(wanted.tolist())


def test_a_class_that_training_lacks_weighs_one_and_moves_no_other() -> None:
    with_it = balanced_weights({"a": 5, "none": 0, "b": 20, "c": 1}, False, 26).tolist()
    without = balanced_weights({"a": 5, "b": 20, "c": 1}, False, 26).tolist()
    assert with_it == [without[0], 1.0, *without[1:]]
    assert balanced_weights({"a": 5, "none": 0}, True, 20).tolist() == [3.0, 1.0]


@pytest.mark.parametrize("seed", range(20))
def test_figures_are_those_of_scikit_learn(seed: int) -> None:
    draw = np.random.default_rng(seed)
    true, given = draw.integers(0, 3, 40 if seed else 3), draw.integers(0, 3, 40 if seed else 3)
    table = np.zeros((3, 3))
    np.add.at(table, (true, given), 1)
    got = classification_metrics(8.0, 16.0, float((true == given).sum()), table, NAMES, several=False)
    assert got["loss"] == 0.5
    assert got["accuracy"] == pytest.approx(accuracy_score(true, given))
    assert got["f1"] == pytest.approx(f1_score(true, given, average="macro", zero_division=0))


def test_a_class_that_does_not_occur_counts_for_nothing() -> None:
    got = classification_metrics(0.0, 4.0, 4.0, np.diag([2.0, 2.0, 0.0]), NAMES, several=False)
    assert got["f1"] == 1.0
    assert got["f1/c"] == 0.0


def test_a_run_learns_and_its_export_predicts_the_same(prepared: Callable[..., Any]) -> None:
    settings = ["trainer.max_steps=200", "trainer.max_epochs=-1", "trainer.val_check_interval=50", "optim.lr=5e-3"]
    given, run = prepared("sequence_classification", "gpt2", *settings, of=rows("sentiment", 300))
    train(given, run)
    before, after = run.result["metrics"]["before"], run.result["metrics"]["after"]
    majority = max(given.labels.counts["val"].values()) / sum(given.labels.counts["val"].values())
    assert after["val/accuracy"] > majority + 0.1
    assert after["val/f1"] > before["val/f1"]
    assert "pipeline_tag: text-classification" in (run.export / "README.md").read_text()
    classify = pipeline("text-classification", model=str(run.export), top_k=None)
    documents = given.splits.of("val")[:8].tolist()
    texts = [given.splits.documents[number]["text"] for number in documents]
    data, task = build(given, L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False))
    best = torch.load(run.best, weights_only=True)["state_dict"]
    task.load_state_dict(best)
    with torch.no_grad():
        examples = [data.datasets["val"].example(index) for index in range(len(texts))]
        wanted = task.eval().logits(collate(data, examples)).softmax(-1)
    for text_scores, row in zip(classify(texts, batch_size=4), wanted, strict=True):
        by_name = {score["label"]: score["score"] for score in text_scores}
        assert set(by_name) == {"positive", "negative"}
        assert [by_name[name] for name in task.names] == pytest.approx(row.tolist(), abs=1e-5)


def test_texts_with_several_labels(prepared: Callable[..., Any], tmp_path: Any) -> None:
    rows = [{"text": f"{'good ' * (n % 2)}{'film ' * (n % 3 == 0)}play {n}", "label": []} for n in range(60)]
    for number, row in enumerate(rows):
        row["label"] = ["good"] * (number % 2) + ["film"] * (number % 3 == 0)
    given, run = prepared("sequence_classification", "bert", "task.class_weights=balanced", of=rows)
    assert given.labels.several
    train(given, run)
    config = (run.export / "config.json").read_text()
    assert '"problem_type": "multi_label_classification"' in config
    measured = {"val/loss", "val/accuracy", "val/f1", "val/f1/film", "val/f1/good"}
    assert set(run.result["metrics"]["after"]) == measured


@pytest.mark.parametrize("absent", [[], [1], [0, 1, 2]])
def test_figures_of_several_labels_are_those_of_scikit_learn(absent: list[int]) -> None:
    draw = np.random.default_rng(0)
    true, given = draw.random((50, 3)) < 0.4, draw.random((50, 3)) < 0.4
    true[:, absent] = given[:, absent] = False
    table = np.stack([(true & given).sum(0), (true & ~given).sum(0), (~true & given).sum(0)], axis=1).astype(float)
    right = float((true == given).all(1).sum())
    got = classification_metrics(1.0, 50.0, right, table, NAMES, several=True)
    assert got["accuracy"] == pytest.approx(accuracy_score(true, given))
    assert got["f1"] == pytest.approx(f1_score(true, given, average="macro", zero_division=0))


def test_a_rank_without_rows_learns_nothing(built: Callable[..., Any]) -> None:
    data, task = built("bert")
    (batch,) = data._collation("train")([])["parts"]
    with torch.no_grad():
        loss, weight, _ = task(batch)
    assert (float(loss), float(weight), batch["tokens"]) == (0.0, 0.0, 0)


def test_an_export_is_measured_with_its_own_labels(prepared: Callable[..., Any]) -> None:
    given, run = prepared("sequence_classification", "bert")
    train(given, run)
    config = given.config
    config.model.checkpoint = str(run.export)
    again = prepare(config)
    assert again.labels is not None
    metrics, labels, unit, _ = evaluate(again)
    assert unit == "texts"
    assert labels == len(given.splits.of("test"))
    assert {"test/loss", "test/accuracy", "test/f1"} <= metrics.keys()


def test_a_confusion_matrix_is_drawn_at_each_validation(prepared: Callable[..., Any]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    given, run = prepared("sequence_classification", "bert", "logger=tensorboard", "trainer.val_check_interval=1")
    train(given, run)
    events = EventAccumulator(str(run.path), size_guidance={"images": 0}).Reload()
    assert [event.step for event in events.Images("val/confusion")] == [0, 1, 2]
    assert curves(run)["val/loss"] == [0, 1, 2]
    assert "epoch" not in events.Tags()["scalars"]
    assert "val/f1/positive" in events.Tags()["scalars"]


def test_collating_keeps_labels_apart_from_padding() -> None:
    examples: list[list[Example]] = [
        [{"input_ids": torch.tensor([3, 4]), "labels": torch.tensor(1), "window": 7}],
        [{"input_ids": torch.tensor([3, 4, 0, 0]), "labels": torch.tensor(0), "window": 8}],
    ]
    batch = collate_examples(examples, examples[0][0], pad_token_id=0)
    assert batch["input_ids"].tolist() == [[3, 4, 0, 0], [3, 4, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    assert (batch["labelled"], batch["tokens"], batch["windows"]) == (2, 6, [7, 8])


def test_a_batch_knows_where_its_labels_stand() -> None:
    rows: list[list[Example]] = [
        [{"input_ids": torch.tensor([3, 4]), "labels": torch.tensor([-100, 5]), "window": 7}],
        [{"input_ids": torch.tensor([3, 4, 0]), "labels": torch.tensor([6, -100, 2]), "window": 8}],
    ]
    batch = collate_examples(rows, rows[0][0], pad_token_id=0)
    assert batch["labels"].tolist() == [[-100, 5, -100], [6, -100, 2]]
    assert (batch["places"].tolist(), batch["targets"].tolist(), batch["labelled"]) == ([1, 3, 5], [5, 6, 2], 3)


def test_the_class_is_what_its_config_says(built: Callable[..., Any]) -> None:
    _, task = built("distilbert")
    assert isinstance(task, SequenceClassification)
    assert task.names == ["negative", "positive"]


def curves(run: Any) -> dict[str, list[int]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.path), size_guidance={"scalars": 0}).Reload()
    return {tag: [event.step for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


FIGURES = ("train/loss", "lr", "train/grad_norm", "train/tokens_per_second", "train/data_wait")


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        (("trainer.max_steps=3",), [3]),
        (("trainer.max_steps=4", "trainer.log_every_n_steps=3"), [3, 4]),
        (("trainer.max_steps=4", "trainer.log_every_n_steps=2"), [2, 4]),
        (("trainer.max_steps=-1", "trainer.max_epochs=1", "trainer.limit_train_batches=2"), [2]),
        (
            (
                "trainer.max_steps=9",
                "callbacks=early_stopping",
                "callbacks.early_stopping.patience=1",
                "optim.lr=1e-30",
            ),
            [4],
        ),
    ],
)
def test_the_last_step_is_logged_whatever_the_interval(
    prepared: Callable[..., Any], settings: tuple[str, ...], steps: list[int]
) -> None:
    given, run = prepared("sequence_classification", "bert", "logger=tensorboard", "task.monitor=val/loss", *settings)
    train(given, run)
    found = curves(run)
    assert {name: found[name] for name in FIGURES} == dict.fromkeys(FIGURES, steps)


def test_curves_are_whole_where_event_files_are_read_in_another_order(
    prepared: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.summary.writer import event_file_writer

    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(9))  # 9, then 10
    monkeypatch.setattr(event_file_writer, "time", types.SimpleNamespace(time=lambda: 1_800_000_000))
    given, run = prepared("sequence_classification", "bert", "logger=tensorboard", "trainer.max_steps=3")
    train(given, run)
    assert curves(run)["train/loss"] == [3]


def test_what_a_killed_process_drew_is_left_out_wherever_a_person_keeps_curves(
    prepared: Callable[..., Any], tmp_path: Path
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    elsewhere = tmp_path / "elsewhere"
    settings = ("logger=tensorboard", f"logger.tensorboard.save_dir={elsewhere}", "trainer.max_steps=3")
    given, run = prepared("sequence_classification", "bert", *settings)
    [logger] = loggers(given.config, run)
    logger.experiment.add_scalar("train/loss", 1.0, 7)
    logger.finalize("failed")
    train(given, run)
    events = EventAccumulator(logger.log_dir).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [3]


def test_the_last_step_is_logged_where_time_is_over(prepared: Callable[..., Any]) -> None:
    endless = (
        "trainer.max_steps=-1",
        "trainer.max_epochs=-1",
        "trainer.max_time=00:00:00:01",
        "scheduler.warmup_steps=0",
    )
    far = ("logger=tensorboard", "trainer.val_check_interval=100000", "trainer.log_every_n_steps=100000")
    given, run = prepared("sequence_classification", "bert", *endless, *far)
    train(given, run)
    found = curves(run)
    assert {name: found[name] for name in FIGURES} == {name: [run.result["steps"]] for name in FIGURES}


def test_a_step_that_was_the_last_one_is_no_point_of_a_longer_run(prepared: Callable[..., Any]) -> None:
    settings = ("logger=tensorboard", "trainer.log_every_n_steps=4", "trainer.max_epochs=-1", "scheduler=constant")
    given, run = prepared("sequence_classification", "bert", *settings, "trainer.max_steps=3")
    train(given, run)
    assert curves(run)["train/loss"] == [3]
    given, run = prepared("sequence_classification", "bert", *settings, "trainer.max_steps=6")
    train(given, run)
    assert {name: curves(run)[name] for name in FIGURES} == {name: [4, 6] for name in FIGURES}


def test_early_stopping_may_watch_the_training_loss(prepared: Callable[..., Any]) -> None:
    watching = ("callbacks=early_stopping", "callbacks.early_stopping.monitor=train/loss")
    given, run = prepared("sequence_classification", "bert", *watching, "trainer.val_check_interval=1")
    assert given.config.callbacks["early_stopping"]["mode"] == "min"
    train(given, run)  # every step is validated after, and none is a tenth one


ODD = ["[open]", "[/wontfix]", "$0_to_$50", "正面", "a/b c", ":smile:", "x\nf(x)", "\\", "W" * 300]


def test_names_of_classes_are_no_markup_anywhere(
    prepared: Callable[..., Any], capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    rows = [{"text": f"text {number} of {name[:5]}", "label": name} for name in ODD for number in range(12)]
    table = "+logger.csv={_target_: lightning.pytorch.loggers.CSVLogger, save_dir: '${paths.logs}'}"
    given, run = prepared("sequence_classification", "bert", "logger=tensorboard", table, of=rows)
    given.config.logger["csv"]["save_dir"] = str(run.path)
    train(given, run)
    assert run.result["status"] == "finished"
    printed = capsys.readouterr().out
    for name in ODD[:-1]:
        assert f"f1/{escaped(name)}" in printed
        assert f"val/f1/{name}" in curves(run)
    assert not [each for each in recwarn if "missing from font" in str(each.message) or "layout" in str(each.message)]
    assert "note: the" not in printed
    assert "f1/正面" in (run.export / "README.md").read_text()
    with next(run.path.rglob("metrics.csv")).open(encoding="utf-8", newline="") as file:
        steps = [int(row["step"]) for row in csv.DictReader(file) if row["val/loss"]]
    assert steps == curves(run)["val/loss"]
    assert steps[0] == 0
    assert steps[-1] == run.result["steps"]


def test_what_cannot_be_drawn_or_printed_ends_no_run(
    prepared: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ValueError("no such thing")

    monkeypatch.setattr("domaintune.tasks.drawing.fonts_for", broken)
    monkeypatch.setattr("domaintune.training.log_hyperparameters", broken)
    monkeypatch.setattr("domaintune.runs.report.Table.add_column", broken)
    monkeypatch.setattr("domaintune.runs.report._in_markdown", broken)
    given, run = prepared("sequence_classification", "bert", "logger=tensorboard")
    train(given, run)
    assert run.result["status"] == "finished"
    printed = capsys.readouterr().out
    for what in ("confusion matrix", "hyperparameters", "model card", "results"):
        assert re.search(rf"note: the {what}.* could not be \w+: ValueError: no such thing", printed), what
    assert run.export.is_dir()


def test_what_is_measured_is_known_by_its_hash(built: Callable[..., Any]) -> None:
    more = ("data.val_fraction=0.4",)  # enough for several batches
    small, large = (built("bert", f"data.batch_size={size}", *more)[0] for size in (4, 8))
    assert small.measured_sha256("val", 1.0) == large.measured_sha256("val", 1.0)
    assert small.measured_sha256("val", 1) != large.measured_sha256("val", 1), "the first batch of either"
    assert small.measured_sha256("val", 2) != small.measured_sha256("val", 1.0)
    assert small.measured_sha256("val", 10**6) == small.measured_sha256("val", 1.0)
