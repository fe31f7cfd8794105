"""What a run's folder keeps of what was printed."""

import subprocess
import sys
from pathlib import Path

import pytest

from domaintune.runs.console import CopiedStream, OutputLog

PRINTS = """
import sys
from pathlib import Path
from domaintune.runs.console import copy_output, keep_output
copy_output()
print("before", flush=True)
keep_output(Path(sys.argv[1]))
print("after 日本 \\x1b[1mbold\\x1b[0m")
print("error", file=sys.stderr)
print("begun", end="")
raise ValueError("why")
"""


def kept(*written: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    log = OutputLog()
    stream = CopiedStream(sys.stdout, log)
    log.keep(tmp_path / "output.log")
    for text in written:
        stream.write(text)
    assert capsys.readouterr().out == "".join(written)
    return (tmp_path / "output.log").read_text().splitlines()


def test_all_that_a_process_prints_is_kept_also_how_it_ended(tmp_path: Path) -> None:
    file = tmp_path / "output.log"
    done = subprocess.run([sys.executable, "-c", PRINTS, str(file)], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("before\nafter 日本 \x1b[1mbold\x1b[0m\nbegun")
    lines = file.read_text(encoding="utf-8").splitlines()
    assert lines[:4] == ["before", "after 日本 bold", "error", "Traceback (most recent call last):"]
    assert lines[-1] == "ValueError: why"


def test_a_process_goes_on_where_nobody_reads_it_any_more(tmp_path: Path) -> None:
    """As after `| tee`, which Ctrl-C ends, too."""
    file = tmp_path / "output.log"
    after = 'import time\nsys.stdin.read()\nprint("unread", flush=True)\nprint("to the end")\n'
    program = PRINTS.replace("raise ValueError", f"{after}raise ValueError")
    command = [sys.executable, "-c", program, str(file)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "before\n"
        process.stdout.close()
        _, said = process.communicate()
    lines = file.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line in ("begununread", "to the end")] == ["begununread", "to the end"]
    assert said.strip().endswith("ValueError: why"), "and nothing about a pipe"
    assert "Broken" not in said


def test_a_second_process_adds_to_it(tmp_path: Path) -> None:
    for _ in range(2):
        subprocess.run([sys.executable, "-c", PRINTS, str(tmp_path / "o")], capture_output=True, check=False)
    assert (tmp_path / "o").read_text(encoding="utf-8").split().count("before") == 2


def test_what_goes_there_anyway_is_kept_once(tmp_path: Path) -> None:
    file = tmp_path / "output.log"
    with file.open("w") as out:
        subprocess.run([sys.executable, "-c", PRINTS, str(file)], stdout=out, stderr=out, check=False)
    assert file.read_text(encoding="utf-8").count("after") == 1


def test_a_bar_counts_as_it_stood_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bar = ("\x1b[?25l", "\r\x1b[2K━━ 1/3", "\r\x1b[2K━━ 2/3", "\r\x1b[2Ksaid above\n━━ 2/3", "\r\x1b[2K━━━ 3/3", "\n")
    written = (*bar, "\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\\r\n", "a\rb\n")
    assert kept(*written, tmp_path=tmp_path, capsys=capsys) == ["said above", "━━━ 3/3", "link", "b"]
