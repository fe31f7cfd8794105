"""What a run's folder is taken for, however it was left."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from domaintune.config.checks import DEFAULT_LR, check
from domaintune.config.comparison import deciding
from domaintune.config.schema import Config
from domaintune.errors import RunError, UsageError
from domaintune.files.writing import sha256_of
from domaintune.runs import folder as recording
from domaintune.runs.folder import RunFolder, config_of_run

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


@pytest.mark.parametrize(("first", "second"), [("a", "a/b"), ("a/b", "a"), ("a", "a/b/c"), ("a/b/c", "a")])
def test_a_run_never_lies_in_the_folder_of_another(compose: Any, tmp_path: Path, first: str, second: str) -> None:
    """fresh=true would move both, and what one has begun to write would seem to be left over in the other."""
    for number, name in enumerate((first, second)):
        config = check(compose(f"name={name}", f"paths.runs={tmp_path}"))
        if number:
            with pytest.raises(UsageError, match="take another name"):
                RunFolder(tmp_path / name).claim(config, HASHES, "python train.py")
        else:
            RunFolder(tmp_path / name).claim(config, HASHES, "python train.py")
    config = check(compose("name=z/y", f"paths.runs={tmp_path}"))
    assert not RunFolder(tmp_path / "z/y").claim(config, HASHES, "python train.py")


def test_what_a_try_left_that_has_no_checkpoint_to_go_on_from_is_no_result(tmp_path: Path, config: Config) -> None:
    run = RunFolder(tmp_path / "kept")
    run.claim(config, HASHES, "python train.py")
    run.checkpoints.mkdir()
    run.export.mkdir()
    for file in (run.best, recording.checksum_file(run.best), run.export / "model.safetensors"):
        file.touch()
    again = RunFolder(run.path)
    again._lock = run._lock  # of this process
    run._lock.release()
    assert not again.claim(another(config, optim__lr=1e-6), HASHES, "python train.py")
    assert sorted(file.name for file in again.path.rglob("*") if file.is_file()) == [
        ".lock",
        "config.yaml",
        "result.json",
    ]


def test_a_run_that_torchrun_starts_again_goes_on(
    finished: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.fresh = True
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert RunFolder(finished).claim(config, HASHES, "python train.py fresh=true"), "it has finished"
    assert [folder.name for folder in finished.parent.iterdir()] == ["kept"]


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


def another(config: Config, **settings: Any) -> Config:
    """A config with settings `group__key=value` changed, checked anew."""
    made = OmegaConf.create(asdict(config))
    for key, value in settings.items():
        OmegaConf.update(made, key.replace("__", "."), value, merge=False)
    return check(made)


def unfinished(folder: Path) -> None:
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps({**result, "status": "running"}))


MOVED = {"data__path": "/elsewhere/diary.jsonl", "data__val_path": ["/elsewhere/val.jsonl"], "data__subset": "b"}


@pytest.mark.parametrize("ended", [True, False])
def test_data_that_was_moved_is_known_by_its_hash(finished: Path, config: Config, ended: bool) -> None:
    if not ended:
        unfinished(finished)
    moved = another(config, **MOVED)
    assert RunFolder(finished).has_finished(moved, HASHES) == ended
    assert RunFolder(finished).claim(moved, HASHES, "python train.py") == ended
    assert RunFolder(finished).claim(another(config), HASHES, "python train.py") == ended, "and back"


def test_other_data_is_refused_with_its_name_and_its_hash(finished: Path, config: Config) -> None:
    with pytest.raises(UsageError) as refused:
        RunFolder(finished).claim(another(config, **MOVED), {**HASHES, "data": "other"}, "python train.py")
    assert "data.path: None -> /elsewhere/diary.jsonl" in str(refused.value)
    assert "data (SHA-256): d -> other" in str(refused.value)


def test_a_setting_that_no_hash_decides_is_refused_also_where_the_data_was_moved(
    finished: Path, config: Config
) -> None:
    with pytest.raises(UsageError) as refused:
        RunFolder(finished).claim(another(config, **MOVED, data__block_size=64), HASHES, "python train.py")
    assert "data.block_size: 512 -> 64" in str(refused.value)
    assert "data.path" not in str(refused.value)


COPY = {"model__checkpoint": "/elsewhere/gpt2_tiny", "optim__lr": None}


def test_a_copied_checkpoint_goes_on_with_the_rate_that_was_measured_for_it(
    finished: Path, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    assert config.optim.lr == 2e-3
    unfinished(finished)
    for _ in range(2):  # the second time, config.yaml has the copy's name
        copied = another(config, **COPY, model__measured_lr={"embedded:gpt2_tiny": 2e-3})
        assert copied.optim.lr == DEFAULT_LR
        assert not RunFolder(finished).claim(copied, HASHES, "python train.py")
        assert copied.optim.lr == 2e-3
        assert "with the optim.lr it began with, 0.002" in capsys.readouterr().out
    with pytest.raises(UsageError, match=r"optim\.lr: 0\.002 -> 0\.0003"):
        RunFolder(finished).claim(another(config, **{**COPY, "optim__lr": 3e-4}), HASHES, "python train.py")


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        ({"weights": "w", "checkpoint": "c"}, {"weights": "w", "checkpoint": "c"}, True),
        ({"weights": "w"}, {"weights": "w", "checkpoint": "c"}, True),  # an earlier version didn't record the rest
        ({"weights": "w", "checkpoint": "c"}, {"weights": "w", "checkpoint": "other"}, False),  # another tokenizer
        ({"weights": None, "checkpoint": "c"}, {"weights": None, "checkpoint": "c"}, True),
        ({"weights": None, "checkpoint": "c"}, {"weights": None, "checkpoint": "other"}, False),
        ({"weights": None}, {"weights": None, "checkpoint": "c"}, False),  # random weights: nothing is known
    ],
)
def test_a_checkpoint_of_another_name_is_known_by_all_its_hashes(
    tmp_path: Path, config: Config, before: dict[str, str | None], after: dict[str, str | None], same: bool
) -> None:
    run = RunFolder(tmp_path / "kept")
    run.claim(config, {"data": "d", **before}, "python train.py")
    with run.recording():
        pass
    copied = another(config, **COPY)
    if same:
        assert RunFolder(run.path).has_finished(copied, {"data": "d", **after})
    else:
        with pytest.raises(UsageError, match=r"model\.checkpoint: embedded:gpt2_tiny -> /elsewhere/gpt2_tiny"):
            RunFolder(run.path).has_finished(copied, {"data": "d", **after})


@pytest.mark.parametrize("changed", ["checkpoint", "generation"])
def test_what_is_loaded_beside_the_weights_is_told_where_it_has_changed(
    tmp_path: Path, config: Config, changed: str
) -> None:
    """config.json and the tokenizer's files, and generation_config.json."""
    run = RunFolder(tmp_path / "kept")
    recorded = {**HASHES, "checkpoint": "c", "generation": "g"}
    run.claim(config, recorded, "python train.py")
    with run.recording():
        pass
    assert RunFolder(run.path).has_finished(config, recorded)
    with pytest.raises(UsageError, match=rf"{changed} \(SHA-256\): . -> other"):
        RunFolder(run.path).has_finished(config, {**recorded, changed: "other"})


def test_settings_that_an_earlier_version_did_not_have_are_what_they_are_by_default(
    finished: Path, config: Config
) -> None:
    kept = OmegaConf.load(finished / "config.yaml")
    for group, key in (("data", "strict"), ("data", "roles"), ("data", "marks"), ("model", "resize_embeddings")):
        del kept[group][key]
    OmegaConf.save(kept, finished / "config.yaml")
    assert RunFolder(finished).has_finished(config, HASHES)
    assert RunFolder(finished).has_finished(another(config, data__strict=True), HASHES)  # the same data, by its hash
    with pytest.raises(UsageError, match=r"model\.resize_embeddings: False -> True"):
        RunFolder(finished).has_finished(another(config, model__resize_embeddings=True), HASHES)


EARLIER = """# python train.py data=sentiment
name: kept
task: {name: sequence_classification, monitor: val/f1, mode: max, class_weights: none, mask_fraction: 0.15}
data: {format: labels, path: /there/reviews.csv, batching: padded, columns: {label: label}}
model: {checkpoint: some/model, measured_lr: {}}
optim: {lr: 5.0e-05}
scheduler: {name: cosine, warmup_steps: 0.05}
trainer: {max_epochs: -1, max_steps: -1, max_time: '00:01:00:00'}
callbacks:
  stopping: {_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: val/f1, mode: max}
  own: {_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: val/loss}
paths: {cache: cache}
"""


def of_today(**settings: Any) -> Config:
    """What the command of EARLIER means today: without directions, and with a warm-up that is taken."""
    made = OmegaConf.create(EARLIER)
    for key in ("task.mode", "callbacks.stopping.mode"):
        OmegaConf.update(made, key, None)
    OmegaConf.update(made, "scheduler.warmup_steps", 0)
    for key, value in settings.items():
        OmegaConf.update(made, key.replace("__", "."), value, merge=False)
    return check(made)


def test_a_folder_of_an_earlier_version_is_the_same_run(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(EARLIER)
    hashes = {name: {"sha256": digest} for name, digest in HASHES.items()}
    (tmp_path / "result.json").write_text(json.dumps({"status": "finished", **hashes}))
    today = {**HASHES, "checkpoint": "c"}
    assert RunFolder(tmp_path).has_finished(of_today(), today)
    assert RunFolder(tmp_path).has_finished(of_today(data__path="/here/reviews.csv"), today)
    with pytest.raises(UsageError, match=r"task\.mode: max -> min"):
        RunFolder(tmp_path).has_finished(of_today(task__monitor="val/loss"), today)


@pytest.mark.parametrize("other", ["mask_fraction: 0.4", "generate_examples: 0"])
def test_what_an_earlier_version_took_no_notice_of_is_forgotten(tmp_path: Path, other: str) -> None:
    earlier = EARLIER.replace(", mask_fraction: 0.15}", f", {other}}}")
    (tmp_path / "config.yaml").write_text(earlier)
    task = config_of_run(tmp_path).task
    assert (task.mask_fraction, task.generate_examples) == (0.15, 32)
    assert deciding(dict(OmegaConf.create(earlier))) == deciding(dict(OmegaConf.create(EARLIER)))


def test_what_an_earlier_version_took_and_is_refused_today_is_still_evaluated(tmp_path: Path) -> None:
    wrong = EARLIER.replace("monitor: val/f1, mode: max", "monitor: val/loss, mode: max", 1)
    (tmp_path / "config.yaml").write_text(wrong.replace("warmup_steps: 0.05", "warmup_steps: 1.5"))
    assert config_of_run(tmp_path).task.mode == "min"


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("python train.py name=a fresh=true", "The same command without fresh=true resumes from"),
        ("python train.py name=a", "The same command resumes from"),
    ],
)
def test_an_interrupted_run_says_what_resumes_it(tmp_path: Path, config: Config, command: str, says: str) -> None:
    run = RunFolder(tmp_path / "a")
    run.claim(config, HASHES, command)
    run.checkpoints.mkdir()
    run.last.touch()
    assert run.how_to_resume().startswith(says)
