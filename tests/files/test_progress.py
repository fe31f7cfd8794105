import io
import sys

import pytest

from domaintune.files.progress import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("total", [10, None])
def test_a_log_file_gets_nothing(monkeypatch: pytest.MonkeyPatch, total: int | None) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with progress("reading", total, "bytes") as advance:
        advance(10)
    assert sys.stderr.getvalue() == ""


@pytest.mark.parametrize("total", [10_000, None])
def test_a_terminal_gets_a_bar_with_what_is_done(monkeypatch: pytest.MonkeyPatch, total: int | None) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress("reading", total, "bytes") as advance:
        advance(4_000)
        advance(2_000)
    assert "reading 6,000 bytes" in sys.stderr.getvalue()


def test_an_error_passes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    with pytest.raises(ValueError, match="row 3"), progress("reading", 10, "bytes"):
        raise ValueError("row 3")
