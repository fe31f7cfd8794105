"""Checkpoints are whole under one of their names at every moment."""

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from domaintune.errors import RunError
from domaintune.files.writing import is_whole
from domaintune.runs import checkpoints
from domaintune.runs.checkpoints import WholeCheckpointIO


def save(folder: Path, value: float, name: str = "last.ckpt") -> Path:
    WholeCheckpointIO().save_checkpoint({"value": torch.full((1000,), value)}, folder / name)
    return folder / name


def value_of(file: Path) -> float:
    return float(torch.load(file, weights_only=True)["value"][0])


def test_the_one_before_stays_and_both_have_their_checksums(tmp_path: Path) -> None:
    for value in (1.0, 2.0, 3.0):
        last = save(tmp_path, value)
    previous = tmp_path / "previous.ckpt"
    assert (value_of(last), value_of(previous)) == (3, 2)
    assert is_whole(last)
    assert is_whole(previous)
    assert len((tmp_path / "previous.ckpt.sha256").read_text().split()) == 1, "with two the next save reads it all"
    assert {file.name for file in tmp_path.iterdir()} == {
        *("last.ckpt", "last.ckpt.sha256", "previous.ckpt", "previous.ckpt.sha256")
    }


def test_best_has_no_previous(tmp_path: Path) -> None:
    save(tmp_path, 1.0, "best.ckpt")
    assert is_whole(save(tmp_path, 2.0, "best.ckpt"))
    assert not (tmp_path / "previous.ckpt").exists()


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: b"x" + content[1:], lambda _: b""])
def test_what_was_damaged_is_not_whole(tmp_path: Path, damage: Any) -> None:
    last = save(tmp_path, 1.0)
    last.write_bytes(damage(last.read_bytes()))
    assert not is_whole(last)
    last.unlink()
    assert not is_whole(last)


def interruptions() -> list[str]:
    return ["flush", "_keep", "write_whole", "replace", "flush_folder"]


@pytest.mark.parametrize("where", interruptions())
@pytest.mark.parametrize("times", [1, 2])
def test_wherever_saving_ends_a_whole_checkpoint_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, times: int
) -> None:
    """As if the process were killed at that point: nothing after it happens, the next process saves anew."""
    save(tmp_path, 1.0)
    last = save(tmp_path, 2.0)
    with monkeypatch.context() as patched:
        holder: Any = os if where == "replace" else checkpoints
        original, calls = getattr(holder, where), []

        def killed(*arguments: Any) -> Any:
            calls.append(where)
            if len(calls) >= times:
                raise KeyboardInterrupt
            return original(*arguments)

        patched.setattr(holder, where, killed)
        try:
            save(tmp_path, 3.0)
        except KeyboardInterrupt:
            pass
        else:
            assert len(calls) < times
    whole = [file for file in (last, tmp_path / "previous.ckpt") if is_whole(file)]
    assert whole
    assert value_of(whole[0]) >= 2
    assert is_whole(save(tmp_path, 4.0))
    assert is_whole(tmp_path / "previous.ckpt")
    assert value_of(tmp_path / "previous.ckpt") >= 2


def test_a_full_disk_is_told_and_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    last = save(tmp_path, 1.0)
    before = sorted(file.name for file in tmp_path.iterdir())

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints, "flush", full)
    with pytest.raises(RunError, match=r"last\.ckpt can't be written: .*No space left on device"):
        save(tmp_path, 2.0)
    assert value_of(last) == 1
    assert is_whole(last)
    assert sorted(file.name for file in tmp_path.iterdir()) == before


def test_without_links_the_one_before_is_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    save(tmp_path, 1.0)
    assert value_of(save(tmp_path, 2.0)) == 2
    assert value_of(tmp_path / "previous.ckpt") == 1
    assert is_whole(tmp_path / "previous.ckpt")


def test_a_signal_while_saving_is_no_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    last = save(tmp_path, 1.0)

    def signalled(*_: Any) -> None:
        raise SystemExit(143)

    monkeypatch.setattr(checkpoints.hashlib, "sha256", lambda: SimpleNamespace(update=signalled))
    with pytest.raises(SystemExit, match="143"):
        save(tmp_path, 2.0)
    monkeypatch.undo()
    assert value_of(last) == 1
    assert is_whole(last)


def test_what_a_kill_left_of_keeping_the_one_before_is_cleared(tmp_path: Path) -> None:
    """Killed when last.ckpt and previous.ckpt were one file already."""
    last = save(tmp_path, 1.0)
    os.link(last, tmp_path / "previous.ckpt")
    save(tmp_path, 2.0)
    assert value_of(tmp_path / "previous.ckpt") == 1
    assert not list(tmp_path.glob("*.part"))
