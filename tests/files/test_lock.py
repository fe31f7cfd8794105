"""One process at a time in a folder; the others' side is in tests/e2e/test_survival.py."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from domaintune.files import lock as locking
from domaintune.files.lock import Lock


def test_it_is_given_back(tmp_path: Path) -> None:
    lock = Lock(tmp_path)
    lock.take()
    assert str(os.getpid()) in lock.file.read_text()
    lock.release()
    assert not lock.file.exists()
    lock.take()
    lock.release()


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_what_a_loss_of_power_left_is_nobodys(tmp_path: Path, content: str) -> None:
    (tmp_path / ".lock").write_text(content)
    Lock(tmp_path).take()


def test_a_file_system_without_locks_is_told_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locking.fcntl, "lockf", refused)
    Lock(tmp_path).take()
    assert "has no locks" in capsys.readouterr().out
