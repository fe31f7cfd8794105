"""Other data than plain text, through whole commands."""

import json
import random

import pytest


def result_of(folder):
    return json.loads((folder / "result.json").read_text())


@pytest.fixture(scope="module")
def sums(tmp_path_factory):
    """Chats that ask for a sum."""
    file = tmp_path_factory.mktemp("sums") / "chats.jsonl"
    draw, rows = random.Random(0), []
    for _ in range(150):
        one, other = draw.randrange(50), draw.randrange(50)
        question = {"role": "user", "content": f"{one}+{other}?"}
        rows.append({"messages": [question, {"role": "assistant", "content": f"It is {one + other}."}]})
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_chats_are_learnt_from_their_answers_and_answered(command, small, sums):
    rest = [argument for argument in small if not argument.startswith("data.path")]
    done = command("train.py", "name=chat", "data=instructions", f"data.path={sums}", "data.batch_size=2", *rest)
    assert done.returncode == 0, done.stderr
    folder = command.home / "logs" / "runs" / "chat"
    result = result_of(folder)
    train = result["data"]["train"]
    assert train["tokens"] == train["predicted_tokens"] + train["context_tokens"]
    assert train["context_tokens"] > train["documents"]
    assert result["metrics"]["after"]["val/loss"] < result["metrics"]["before"]["val/loss"] - 0.5
    assert all(prompt.endswith("Assistant: ") for prompt in result["samples"]["after"])
    assert "chat=true" in done.stdout
    answer = command("scripts/generate.py", "run=chat", "chat=true", "prompt=1+1?", "max_new_tokens=5")
    assert answer.returncode == 0, answer.stderr
    measured = command("scripts/evaluate.py", "run=chat")
    assert measured.returncode == 0, measured.stderr


def test_a_model_without_a_chat_template_is_not_chatted_with(command, finished):
    refused = command("scripts/generate.py", "run=finished", "chat=true", "prompt=Hello")
    assert refused.returncode == 2
    assert "has no chat template" in refused.stderr


def test_concatenated_says_that_it_mixes_documents_and_is_validated_as_the_others(command, small, finished):
    steps = [argument for argument in small if not argument.startswith("trainer.max_steps")]
    done = command("train.py", "name=mixed", "data.batching=concatenated", "trainer.max_steps=2", *steps)
    assert done.returncode == 0, done.stderr
    assert "training sees across documents, validation does not" in done.stdout
    folder = command.home / "logs" / "runs" / "mixed"
    before, wanted = (result_of(path)["metrics"]["before"] for path in (folder, finished[0]))
    assert before == pytest.approx(wanted, rel=1e-5)


def test_the_benchmark_of_the_data_runs(command):
    done = command("scripts/benchmark.py", "data", "--megabytes", "0.3", "--rounds", "1")
    assert done.returncode == 0, done.stderr
    assert "domaintune to it" in done.stdout


def test_a_split_that_may_hold_trained_documents_is_not_measured(command, finished):
    refused = command("scripts/evaluate.py", "run=finished", "data.val_fraction=0.3")
    assert refused.returncode == 2
    assert "may have been trained on" in refused.stderr


def test_instructions_with_other_column_names_are_measured(command, finished, tmp_path):
    (tmp_path / "faq.csv").write_text("q,a\nOne?,Two.\nThree?,Four.\n")
    names = ["data.format=instructions", "data.columns.prompt=q", "data.columns.completion=a"]
    done = command("scripts/evaluate.py", "run=finished", f"data.path={tmp_path / 'faq.csv'}", *names)
    assert done.returncode == 0, done.stderr


def test_a_validation_set_of_another_text_is_the_one_that_was_given(command, finished, tmp_path):
    for name, texts in (("o", ["one", "two"]), ("v", ["three and four", "five", "six", "seven"])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    paths = [f"data.path={tmp_path / 'o.jsonl'}", f"data.val_path={tmp_path / 'v.jsonl'}"]
    done = command("scripts/evaluate.py", "run=finished", *paths, "split=val")
    assert done.returncode == 0, done.stderr
    assert [line.split("│")[2].strip() for line in done.stdout.splitlines() if "documents" in line] == ["4"]
