"""One process at a time in a folder, or at a file."""

import errno
import json
import os
import socket
from pathlib import Path
from typing import Any

from domaintune.errors import UsageError

try:
    import fcntl
except ImportError:  # Windows has no such locks: nothing is kept out there
    fcntl = None  # type: ignore[assignment]


class Lock:
    """A lock that ends with the process that took it, however that ends.

    The system holds it, so that one left by a killed process is free at once. The file says who took it: file systems
    that don't share locks between machines are found out by its host.

    Args:
        place: what messages name.
        file: of the lock; without one it lies in the folder `place`.
    """

    def __init__(self, place: Path, file: Path | None = None) -> None:
        self.place, self.file = place, file or place / ".lock"
        self._descriptor: int | None = None

    def take(self) -> None:
        """Takes it, and says in the file who did.

        Raises:
            UsageError: another process has it.
        """
        if self._descriptor is not None:
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.file, os.O_RDWR | os.O_CREAT, 0o644)
        holder = _read(descriptor)
        try:
            if fcntl is not None:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                print(f"{self.place}: its file system has no locks ({error}): nothing keeps a second process out")
            else:
                os.close(descriptor)
                raise UsageError(f"{self.place} is in use by {_words(holder)}") from error
        if not self._is_file_of(descriptor):  # whoever had it has given it back in between, and removed the file
            os.close(descriptor)
            self.take()
            return
        # A job of a scheduler that was started anew goes on with its own run on whatever machine.
        host, job = socket.gethostname(), os.environ.get("SLURM_JOB_ID")
        if holder and holder["host"] != host and (job is None or holder["job"] != job):
            os.close(descriptor)
            raise UsageError(
                f"{self.place} is in use by {_words(holder)}, another machine; if that process is gone, delete "
                f"{self.file}"
            )
        self._descriptor = descriptor
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"host": host, "pid": os.getpid(), "job": job}).encode(), 0)

    def release(self) -> None:
        """Gives it back; does nothing where it isn't held."""
        if self._descriptor is not None:
            if self._is_file_of(self._descriptor):
                self.file.unlink()
            os.close(self._descriptor)
            self._descriptor = None

    def _is_file_of(self, descriptor: int) -> bool:
        return self.file.exists() and os.path.samestat(self.file.stat(), os.fstat(descriptor))


def _read(descriptor: int) -> dict[str, Any]:
    """Who took it; nobody where the machine lost its power before that was on the disk."""
    try:
        holder = json.loads(os.read(descriptor, 4096))
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}


def _words(holder: dict[str, str]) -> str:
    return f"process {holder['pid']} on {holder['host']}" if holder else "another process"
