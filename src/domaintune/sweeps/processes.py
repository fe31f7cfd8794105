"""A process that is started for a trial, and that ends with the process that started it."""

import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from domaintune.files.writing import end_of

# Each waits for a line from the process that starts them. The first starts the trial only then, when its watchdog
# stands. The second, where the end of the file comes in place of the line, because that process is gone however it
# ended, kills all processes of the trial: workers of loaders and of DDP too.
GATE = 'read -r _ && exec "$@" </dev/null'
WATCHDOG = 'read -r _ || kill -s KILL -- "-$0"'


class TrialProcess:
    """A command in a session of its own, printing into a file.

    Args:
        output: appended to.
        environment: changes to this process's own.
    """

    def __init__(self, command: list[str], output: Path, environment: Mapping[str, str]) -> None:
        self.output = output
        with output.open("ab") as log:
            self._output_from = log.tell()
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", GATE, "sh", *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **environment},
            )
        self._watchdog = subprocess.Popen(
            ["/bin/sh", "-c", WATCHDOG, str(self._process.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        _send_line(self._process)

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None while it runs. At its end nothing of it is left running."""
        status = self._process.poll()
        if status is not None and self._watchdog.stdin and not self._watchdog.stdin.closed:
            _send_line(self._watchdog)
            self._watchdog.wait()
            self.kill()  # what the trial itself has started
        return status

    def wait(self) -> int:
        """Waits for its end."""
        self._process.wait()
        status = self.poll()
        assert status is not None
        return status

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Asks it to save and to end."""
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    def kill(self) -> None:
        """Kills all its processes."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def printed(self) -> str:
        """The end of what it has printed since it was started."""
        return end_of(self.output, self._output_from)


def _send_line(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.write(b"\n")
        process.stdin.close()
