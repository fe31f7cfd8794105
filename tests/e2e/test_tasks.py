"""Whole commands of the tasks beside the language model."""

import json
import random
import time
from pathlib import Path
from typing import Any

import everyday
import families
import pytest
from conftest import assert_same_end, folder_of, result_of, wait_for

SETTINGS = [
    *("data.block_size=32", "data.batch_size=4", "optim.lr=1e-2", "trainer=cpu", "trainer.max_steps=24"),
    *(
        "trainer.max_epochs=-1",
        "trainer.val_check_interval=8",
        "trainer.log_every_n_steps=1",
        "checkpoint.every_steps=4",
    ),
    *("deterministic=true", "data.val_fraction=0.2", "data.test_fraction=0.2"),
]


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A .csv file of 70 texts with labels: two batches of four fit several times into an epoch."""
    file, draw = tmp_path_factory.mktemp("labelled") / "texts.csv", random.Random(0)
    lines = ["text,label"]
    for _ in range(70):
        words = [draw.choice(families.WORDS) for _ in range(draw.randint(3, 12))]
        lines.append(f"{' '.join(words)},{'positive' if 'good' in words or 'nice' in words else 'negative'}")
    file.write_text("\n".join(lines) + "\n")
    return file


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    def saved(family: str) -> Path:
        return families.save_family(family, tmp_path_factory.mktemp(family))

    return saved


@pytest.mark.parametrize(("data", "family"), [("sentiment", "gpt2"), ("masked", "bert")])
def test_a_killed_run_ends_as_if_it_had_never_stopped(command, start, slowly, labelled, model, data, family):
    """With dropout, in the middle of an epoch."""
    settings = [f"data={data}", f"data.path={labelled}", f"model.checkpoint={model(family)}", "model.dropout=0.2"]
    settings += SETTINGS
    whole = command("train.py", f"name=whole_{data}", *settings)
    assert whole.returncode == 0, whole.stderr
    assert len(result_of(folder_of(command, f"whole_{data}"))["validation"]["tokenizer"]) == 64
    name = f"killed_{data}"
    process = start(f"name={name}", *settings, *slowly.arguments, **slowly.environment)
    wait_for(folder_of(command, name) / "checkpoints" / "last.ckpt", process)
    time.sleep(1.5)
    process.kill()
    process.communicate()
    assert result_of(folder_of(command, name))["status"] == "running"
    again = command("train.py", f"name={name}", *settings, *slowly.arguments, **slowly.path)
    assert again.returncode == 0, again.stderr
    assert "going on from" in again.stdout
    assert_same_end(folder_of(command, f"whole_{data}"), folder_of(command, name))
    measured = command("scripts/evaluate.py", f"run={name}")
    assert measured.returncode == 0, measured.stderr
    assert "accuracy" in measured.stdout
    assert "predicted" in measured.stdout


def test_labels_that_a_run_did_not_learn_are_told_by_evaluate(command, labelled, model, tmp_path):
    settings = ["data=sentiment", f"data.path={labelled}", f"model.checkpoint={model('bert')}", *SETTINGS]
    done = command("train.py", "name=two_labels", *settings, "trainer.max_steps=2")
    assert done.returncode == 0, done.stderr
    assert "positive" in done.stdout
    other = tmp_path / "other.csv"
    other.write_text("text,label\na good film,mixed\na bad film,negative\n")
    refused = command("scripts/evaluate.py", "run=two_labels", f"data.path={other}")
    assert refused.returncode == 2
    assert "does not know mixed" in refused.stderr
    other.write_text("text,label\na good film,positive\n")
    assert command("scripts/evaluate.py", "run=two_labels", f"data.path={other}").returncode == 0


def test_evaluate_weighs_classes_by_the_training_side(command, model, tmp_path):
    draw, rows = random.Random(1), []
    for number in range(120):
        rare = number % 6 == 0
        words = [draw.choice(families.WORDS) for _ in range(6)] + ["good"] * rare
        rows.append({"text": " ".join(words), "label": "rare" if rare else "often"})
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = ["data=sentiment", f"data.path={file}", f"model.checkpoint={model('bert')}", *SETTINGS]
    weighted = [*settings, "task.class_weights=balanced", "trainer.precision=32"]
    done = command("train.py", "name=weighted", *weighted)
    assert done.returncode == 0, done.stderr
    measured = command("scripts/evaluate.py", "run=weighted", "split=val")
    assert measured.returncode == 0, measured.stderr
    after = result_of(folder_of(command, "weighted"))["metrics"]["after"]["val/loss"]
    assert everyday.figure(measured.stdout, "loss") == pytest.approx(after, rel=1e-4)


def test_what_does_not_fit_is_told_in_one_message(command, labelled, model):
    for arguments, words in (
        (["data=sentiment"], "data=sentiment has no text of its own: set data.path"),
        (["data=summaries"], "gpt2 is a decoder, which sees no token to the right, so it does not fit task=seq2seq"),
        ([f"model.checkpoint={model('t5')}"], "t5 is an encoder with a decoder"),
    ):
        refused = command("train.py", *arguments)
        assert refused.returncode == 2
        assert words in refused.stderr
        assert "Traceback" not in refused.stderr


def test_unbalanced_single_and_unknown_labels_are_told_with_numbers(command, model, tmp_path):
    rows = [{"text": f"text {n} {families.WORDS[n % 20]}", "label": "often"} for n in range(60)]
    rows += [{"text": "a single one", "label": "once"}, {"text": "text 3 nice", "label": "seldom"}]
    rows += [{"text": rows[0]["text"], "label": "seldom"}]
    file, val = tmp_path / "rows.jsonl", tmp_path / "val.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    val.write_text(json.dumps({"text": "yet unseen", "label": "never"}) + "\n" + json.dumps(rows[1]) + "\n")
    settings = [f"model.checkpoint={model('bert')}", *SETTINGS, "trainer.max_steps=1", "data.test_fraction=0"]
    done = command("train.py", "data=sentiment", f"data.path={file}", f"data.val_path={val}", *settings)
    assert done.returncode == 0, done.stderr
    for words in (
        "never: 1 on the val side and none in training",
        "training has one of the texts with label once",
        "2 texts stand there with another label too",
        "the classes are unbalanced: in training 59 texts with label often and 1 once",
    ):
        assert words in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "family", "strategy", "more"),
    [
        ("sentiment", "gpt2", "ddp", ()),
        ("entities", "bert", "ddp", ()),
        ("summaries", "t5", "ddp", ("task.generate_examples=1",)),  # one process has nothing to write
        ("summaries", "t5", "fsdp", ("task.generate_examples=3",)),  # one has less to write than the other
        ("masked", "bert", "fsdp", ()),  # its output is tied to an embedding inside of a module that is not to be split
    ],
)
def test_two_processes_train_as_one(command, model, tmp_path, data, family, strategy, more):
    """The same rows a step give the same losses and the same figures, whichever process had which."""
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in families.rows(data, 99)))
    settings = [f"data={data}", f"data.path={file}", f"model.checkpoint={model(family)}", "model.dropout=0"]
    settings += [setting for setting in SETTINGS if setting != "trainer=cpu"]
    settings += ["trainer.precision=32", "trainer.max_steps=6", "~callbacks.samples", "data.batch_size=2"]
    settings += ["trainer.val_check_interval=1.0", "optim.lr=1e-3", *more]
    two = [f"trainer={strategy}", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.accumulate_grad_batches=1"]
    one = ["trainer=cpu", "trainer.accumulate_grad_batches=2"]
    results = []
    for processes, how in (("one", one), ("two", two)):
        name = f"{data}_{strategy}_{processes}"
        done = command("train.py", f"name={name}", *settings, *how)
        assert done.returncode == 0, done.stderr
        results.append(result_of(folder_of(command, name)))
    assert results[0]["tokens_trained"] == results[1]["tokens_trained"]
    for when in ("before", "after"):
        first, second = (result["metrics"][when] for result in results)
        assert second == pytest.approx(first, rel=1e-4, abs=1e-6)
