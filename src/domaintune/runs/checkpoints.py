"""Checkpoints on the disk: whole or known not to be, with the one before kept."""

import hashlib
import os
import time
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from domaintune.errors import RunError
from domaintune.files.writing import PART, checksum_file, flush, flush_folder, sha256_of, write_whole, written_beside

KEPT = {"last.ckpt": "previous.ckpt"}  # which checkpoint stays under which name when a new one takes its place


class _Hashing:
    """A binary file that knows the SHA-256 of what was written."""

    def __init__(self, out: BinaryIO) -> None:
        self.out, self.sha256 = out, hashlib.sha256()
        self.stopped: BaseException | None = None  # torch's writer makes a RuntimeError of whatever ends it

    def write(self, part: Any) -> int:
        try:
            self.sha256.update(part)
            return self.out.write(part)
        except BaseException as error:
            self.stopped = error
            raise

    def flush(self) -> None:
        self.out.flush()


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes beside, flushes to the disk, checks and renames, with a checksum next to it.

    At every moment there is a whole checkpoint under one of its names. Lightning's own goes through the system's
    folder for temporary files, which may be another file system, where a rename isn't one.

    Attributes:
        seconds: that saving has taken.
    """

    seconds = 0.0

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Saves; tensors and plain containers only.

        Raises:
            RunError: it can't be written, as where the disk is full; what was there is left as it was.
        """
        file = Path(path)
        if storage_options is not None:
            raise TypeError("a checkpoint has no storage options")
        started = time.perf_counter()
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with written_beside(file) as (out, beside):
                hashing = _Hashing(out)
                try:
                    torch.save(checkpoint, cast(BinaryIO, hashing))
                except RuntimeError as error:
                    raise hashing.stopped or error from None  # a full disk, or a signal that ends the process
                flush(out)
                if os.path.getsize(beside) != out.tell():
                    raise OSError(f"{out.tell()} bytes were written and {os.path.getsize(beside)} are there")
                before = _checksum(file)
                if file.name in KEPT and before:
                    _keep(file, file.with_name(KEPT[file.name]), before)
                # Both are right until the rename: there is no moment at which a whole checkpoint seems damaged.
                write_whole(checksum_file(file), f"{hashing.sha256.hexdigest()}\n{before}\n")
                os.replace(beside, file)
            flush_folder(file.parent)
            write_whole(checksum_file(file), f"{hashing.sha256.hexdigest()}\n")
        except (OSError, RuntimeError) as error:
            raise RunError(f"{file} can't be written: {error}") from error
        finally:
            self.seconds += time.perf_counter() - started

    def remove_checkpoint(self, path: Any) -> None:
        super().remove_checkpoint(path)
        checksum_file(Path(path)).unlink(missing_ok=True)


def _checksum(file: Path) -> str:
    """The checksum of a file that is there, else an empty string."""
    if not file.exists():
        return ""
    checksums = checksum_file(file)
    words = checksums.read_text(encoding="utf-8").split() if checksums.exists() else []
    return words[0] if len(words) == 1 else sha256_of(file)  # two: a process was killed between two renames


def _keep(file: Path, previous: Path, checksum: str) -> None:
    """Gives a file a second name, which another may have had."""
    write_whole(checksum_file(previous), f"{checksum}\n{_checksum(previous)}\n")
    link = previous.with_name(f"{previous.name}{PART}")
    link.unlink(missing_ok=True)
    try:
        os.link(file, link)
    except OSError:  # a file system without links
        os.replace(file, previous)
    else:
        os.replace(link, previous)
        link.unlink(missing_ok=True)  # a rename of two names of one file does nothing
    write_whole(checksum_file(previous), f"{checksum}\n")
