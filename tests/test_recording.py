"""What a run's folder is taken for, however it was left."""

import json
from pathlib import Path
from typing import Any

import pytest

from domaintune import recording
from domaintune.config import RunError, check
from domaintune.recording import RunFolder
from domaintune.settings import Config
from domaintune.writing import sha256_of

HASHES: dict[str, str | None] = {"data": "d", "weights": "w"}


@pytest.fixture
def config(compose: Any) -> Config:
    return check(compose("name=kept"))


@pytest.fixture
def finished(tmp_path: Path, config: Config) -> Path:
    """The folder of a finished run with checkpoints that are none."""
    run = RunFolder(tmp_path / "kept")
    run.claim(config, HASHES, "python train.py name=kept")
    with run.recording():
        run.checkpoints.mkdir()
        for file in (run.last, run.best):
            recording.write_whole(file, "weights")
            recording.write_whole(recording.checksum_file(file), sha256_of(file))
    return run.path


def test_an_extension_that_was_killed_while_it_was_claimed_is_one_again(
    finished: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.trainer.max_epochs = 2
    write_whole = recording.write_whole

    def killed(file: Path, text: str) -> None:
        if file.name == "config.yaml":
            raise KeyboardInterrupt
        write_whole(file, text)

    with monkeypatch.context() as patched:
        patched.setattr(recording, "write_whole", killed)
        with pytest.raises(KeyboardInterrupt):
            RunFolder(finished).claim(config, HASHES, "python train.py")
    run = RunFolder(finished)
    assert not run.claim(config, HASHES, "python train.py"), "it is not finished"
    assert run.resume_from == run.last


def test_without_a_whole_checkpoint_it_is_refused_every_time(finished: Path, config: Config) -> None:
    run = RunFolder(finished)
    result = json.loads((finished / "result.json").read_text())
    (finished / "result.json").write_text(json.dumps({**result, "status": "running"}))
    run.last.write_text("other")
    for _ in range(2):
        with pytest.raises(RunError, match="no whole checkpoint"):
            RunFolder(finished).claim(config, HASHES, "python train.py")
    recording.checksum_file(run.last).unlink()
    with pytest.raises(RunError, match="no whole checkpoint"):
        RunFolder(finished).claim(config, HASHES, "python train.py")


def test_a_damaged_best_checkpoint_is_told_before_training(finished: Path, config: Config) -> None:
    result = json.loads((finished / "result.json").read_text())
    (finished / "result.json").write_text(json.dumps({**result, "status": "running"}))
    RunFolder(finished).best.write_text("other")
    with pytest.raises(RunError, match=r"best\.ckpt is damaged"):
        RunFolder(finished).claim(config, HASHES, "python train.py")


def test_a_job_that_was_queued_anew_does_not_start_over(
    finished: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.fresh = True
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert RunFolder(finished).claim(config, HASHES, "python train.py")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "0")
    assert not RunFolder(finished).claim(config, HASHES, "python train.py")


def test_a_full_disk_is_told_as_what_was_met_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(recording, "write_whole", full)
    with pytest.raises(RunError, match="the checkpoint"), RunFolder(tmp_path).recording():
        raise RunError("the checkpoint can't be written")
