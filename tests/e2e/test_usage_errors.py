"""What is wrong with the config or the data: one clear message, no traceback, exit status 2, within 10 seconds."""

import time
from pathlib import Path

import pytest

LIMIT_SECONDS = 10


@pytest.fixture
def command(fresh_command):
    """The seconds count, those of imports too."""
    return fresh_command


def prepare(folder: Path) -> None:
    (folder / "empty.txt").write_text("")
    (folder / "nothing").mkdir()
    (folder / "nothing" / "picture.png").write_bytes(b"\x89PNG")
    (folder / "latin.txt").write_bytes(b"caf\xe9 au lait\n")
    (folder / "rows.jsonl").write_text('{"text": "one"}\n{"body": "two"}\n')
    (folder / "one.txt").write_text("A single paragraph.\n")
    (folder / "long.txt").write_text("".join(f"Paragraph {number}.\n\n" for number in range(60)))


CASES = {
    "a missing path": (["data.path=missing.txt"], ["missing.txt", "no such file or folder"]),
    "an empty file": (["data.path=empty.txt"], ["empty.txt", "no text"]),
    "a folder without usable files": (["data.path=nothing"], ["nothing", "no usable file", ".jsonl"]),
    "invalid UTF-8": (["data.path=latin.txt"], ["latin.txt", "not UTF-8 at byte 3"]),
    "a row without the field": (
        ["data.path=rows.jsonl", "data.strict=true"],
        ["rows.jsonl, line 2", "no field 'text'", "'body'"],
    ),
    "too few rows beside one without the field": (
        ["data.path=rows.jsonl"],
        ["too small to split", "missing field 1 (", "rows.jsonl:2", "no field 'text'", "'body'"],
    ),
    "a corpus too small to split": (["data.path=one.txt"], ["too small to split"]),
    "an unknown key": (["optim.learning_rate=1"], ["optim.learning_rate"]),
    "a mistyped key": (["trainer.max_step=5"], ["trainer.max_step", "did you mean trainer.max_steps?"]),
    "an unknown choice": (["model=gpt5"], ["model=gpt5: there is no such choice", "gpt2_tiny"]),
    "bad syntax": (["optim.lr=[1"], ["optim.lr=[1"]),
    "a negative learning rate": (["optim.lr=-1e-4"], ["optim.lr=-0.0001", "above 0"]),
    "a word for a number": (["data.batch_size=many"], ["data.batch_size=many"]),
    "two wrong settings": (["optim.lr=0", "data.batch_size=0"], ["optim.lr=0", "data.batch_size=0"]),
    "a block above the model's limit": (
        ["data.path=long.txt", "data.block_size=513"],
        ["data.block_size=513", "512 positions"],
    ),
    "a checkpoint folder that is none": (
        ["data.path=long.txt", "model.checkpoint=./nothing"],
        ["nothing", "config.json"],
    ),
    "no embedded checkpoint of the name": (
        ["data.path=long.txt", "model.checkpoint=embedded:gpt9"],
        ["embedded:gpt2_tiny"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_told_in_seconds_in_words(command, tmp_path, case):
    prepare(tmp_path)
    arguments, words = CASES[case]
    started = time.monotonic()
    done = command("train.py", *arguments, cwd=tmp_path)
    assert time.monotonic() - started < LIMIT_SECONDS
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr
    assert not list(tmp_path.glob("logs/runs/*")), "a run that never began leaves no folder"


def test_a_checkpoint_that_is_nowhere_is_told_with_three_ways_out(command, tmp_path):
    prepare(tmp_path)
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    started = time.monotonic()
    done = command("train.py", "model=gpt2", "data.path=long.txt", cwd=tmp_path, **offline)
    assert time.monotonic() - started < LIMIT_SECONDS
    assert done.returncode == 2
    for words in (
        "openai-community/gpt2",
        "not in the Hub's cache",
        "hf download",
        "model.checkpoint=",
        "model=gpt2_tiny",
    ):
        assert words in done.stderr


def test_without_a_network_the_hub_is_given_up_within_seconds(command, tmp_path):
    prepare(tmp_path)
    nobody = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"}  # a port where nothing answers
    started = time.monotonic()
    done = command("train.py", "model=gpt2", "data.path=long.txt", cwd=tmp_path, **nobody)
    assert time.monotonic() - started < LIMIT_SECONDS
    assert done.returncode == 2
    assert "no answer from the Hub" in done.stderr


def test_without_a_network_a_data_set_of_the_hub_is_given_up_within_seconds(command, tmp_path):
    started = time.monotonic()
    done = command(
        "train.py", "data.path=owner/name", cwd=tmp_path, HF_HUB_OFFLINE="0", HF_ENDPOINT="http://127.0.0.1:9"
    )
    assert time.monotonic() - started < LIMIT_SECONDS
    assert done.returncode == 2, done.stderr
    for words in ("error: data.path=owner/name", "no such file or folder", "the Hub: ", "its cache: nothing"):
        assert words in done.stderr
    assert "Traceback" not in done.stderr
