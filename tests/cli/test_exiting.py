"""How a command ends."""

import errno
import subprocess
import sys
from typing import Any

import pytest

from domaintune.cli.exiting import told


def ended(error: BaseException) -> Any:
    @told
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as left:
        main()
    return left.value.code


def test_ctrl_c_ends_a_command_without_a_traceback() -> None:
    assert ended(KeyboardInterrupt()) == 130


def test_a_full_disk_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(OSError(errno.ENOSPC, "no room", "/here/a.bin")) == 1
    assert capsys.readouterr().err == "error: No space left on device: /here/a.bin\n"


def test_other_errors_of_the_system_keep_their_traceback() -> None:
    @told
    def main(error: OSError) -> None:
        raise error

    for error in (OSError(errno.EIO, "worn out"), BrokenPipeError(errno.EPIPE, "of a socket")):
        with pytest.raises(type(error), match=str(error.strerror)):
            main(error)


def test_a_reader_who_has_read_enough_ends_a_command_quietly() -> None:
    program = """
import sys
from domaintune.cli.exiting import told
@told
def main():
    sys.stdin.read()
    for _ in range(10_000):
        print("a line")
main()
"""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        process.stdout.close()
        _, said = process.communicate()
    assert said == ""
    assert process.returncode == 141
