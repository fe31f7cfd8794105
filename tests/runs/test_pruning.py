"""What is listed as no longer needed, and what stays."""

import json
from pathlib import Path

import pytest

from domaintune.errors import UsageError
from domaintune.files.cache import cached
from domaintune.runs.folder import RunFolder
from domaintune.runs.pruning import find_exports, find_unneeded

CHECKPOINTS = ("best.ckpt", "last.ckpt", "previous.ckpt")


def made(folder: Path, status: str) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "export").mkdir()
    (folder / "config.yaml").write_text("seed: 0")
    (folder / "result.json").write_text(json.dumps({"status": status}))
    (folder / "export" / "model.safetensors").write_bytes(bytes(1000))
    for name in CHECKPOINTS:
        (folder / "checkpoints" / name).write_bytes(bytes(1000))
        (folder / "checkpoints" / f"{name}.sha256").write_text("0" * 64)
    return folder


def files_in(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


def test_a_finished_run_loses_what_only_training_goes_on_from(tmp_path: Path) -> None:
    finished, trial = made(tmp_path / "runs" / "a", "finished"), made(tmp_path / "sweeps" / "s" / "lr=1", "finished")
    (finished / "checkpoints" / "last.ckpt.damaged").write_bytes(bytes(500))
    found = list(find_unneeded([tmp_path / "runs", tmp_path / "sweeps"]))
    assert sum(each.size for each in found) == 4 * 1000 + 500 + 4 * 64
    for each in found:
        each.remove()
    kept = {
        "config.yaml",
        "result.json",
        "export/model.safetensors",
        "checkpoints/best.ckpt",
        "checkpoints/best.ckpt.sha256",
    }
    assert files_in(finished) == files_in(trial) == kept
    assert not list(find_unneeded([tmp_path / "runs", tmp_path / "sweeps"]))


@pytest.mark.parametrize("status", ["running", "interrupted", "failed"])
def test_a_run_that_has_not_finished_keeps_everything(tmp_path: Path, status: str) -> None:
    made(tmp_path / "a", status)
    assert not list(find_unneeded([tmp_path]))


def test_what_fresh_moved_aside_goes_as_a_whole(tmp_path: Path) -> None:
    aside = made(tmp_path / "a.before-2026-11-26T22-36-07+00-00", "interrupted")
    user_s = made(tmp_path / "a.before-lunch", "interrupted")
    [found] = find_unneeded([tmp_path])
    assert (found.path, found.size) == (aside, sum(file.stat().st_size for file in aside.rglob("*") if file.is_file()))
    found.remove()
    assert not aside.exists()
    assert user_s.exists()


def test_what_fresh_moved_aside_is_found_by_the_name_of_its_run(tmp_path: Path) -> None:
    now, other = made(tmp_path / "a[1]", "interrupted"), made(tmp_path / "b", "interrupted")
    aside = [made(tmp_path / f"{run.name}.before-2026-11-26T22-36-07+00-00", "finished") for run in (now, other)]
    assert [found.path for found in find_unneeded([now])] == aside[:1]


def test_a_file_that_went_meanwhile_takes_no_disk(tmp_path: Path) -> None:
    made(tmp_path / "a", "finished")
    [found] = find_unneeded([tmp_path])
    for file in found.files:
        file.unlink()
    assert found.size == 0


def test_models_of_unfinished_runs_in_the_cache(tmp_path: Path) -> None:
    assert not list(find_exports(str(tmp_path)))
    entry = cached(str(tmp_path), "exports", {"best": 1}, lambda folder: (folder / "a").write_bytes(bytes(10)) and None)
    [found] = find_exports(str(tmp_path))
    assert found.path == entry
    found.remove()
    assert not entry.exists()


def test_a_run_that_is_at_work_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = made(tmp_path / "a", "finished")
    before = files_in(folder)
    [found] = find_unneeded([tmp_path])

    def taken(_: object) -> None:
        raise UsageError(f"{folder} is in use by process 1 on here")

    monkeypatch.setattr("domaintune.files.lock.Lock.take", taken)
    with pytest.raises(UsageError, match="in use"):
        found.remove()
    assert files_in(folder) == before


@pytest.mark.parametrize("content", ["[]", '"finished"', '{"status": 1}'])
def test_a_folder_that_is_no_run_is_left_alone(tmp_path: Path, content: str) -> None:
    (made(tmp_path / "a", "finished") / "result.json").write_text(content)
    assert not list(find_unneeded([tmp_path]))
    (made(tmp_path / "b", "finished") / "config.yaml").unlink()
    assert not list(find_unneeded([tmp_path]))


def test_one_that_went_on_since_it_was_listed_stays(tmp_path: Path) -> None:
    folder = made(tmp_path / "a", "finished")
    found = list(find_unneeded([tmp_path]))
    RunFolder(folder).update(status="interrupted")
    for each in found:
        each.remove()
    assert {f"checkpoints/{name}" for name in CHECKPOINTS} <= files_in(folder)
