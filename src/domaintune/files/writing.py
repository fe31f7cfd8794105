"""Files that are whole or not there, and checkpoints that are known to be."""

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

END = 16_384  # bytes
PART = ".part"  # how the names of unfinished files end: what a killed process left is known by it


@contextmanager
def written_beside(file: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A new file in the same folder, flushed to the disk at the end; what fails leaves nothing behind.

    Yields:
        the open file and its path. Whoever wrote it renames it; if it is still there at the end, it is removed.
    """
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f"{file.name}.", suffix=PART)
    beside = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as out:
            os.chmod(beside, 0o644)  # a temporary file is for its owner alone
            yield out, beside
    finally:
        beside.unlink(missing_ok=True)


def flush(out: BinaryIO) -> None:
    """Hands what was written to the disk."""
    out.flush()
    os.fsync(out.fileno())


def flush_folder(folder: Path) -> None:
    """Hands the names in a folder to the disk, where the system has that."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def flush_tree(folder: Path) -> None:
    """Hands all files in a folder, which others have written, to the disk, with their names."""
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir():
            flush_folder(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())


def write_whole(file: Path, text: str) -> None:
    """Writes beside, flushes to the disk and renames: a reader finds the old text or the new one, never a part.

    Two writers at once don't mix; the last one wins. What fails leaves nothing behind.
    """
    with written_beside(file) as (out, beside):
        out.write(text.encode())
        flush(out)
        os.replace(beside, file)
    flush_folder(file.parent)


def write_arrays(file: Path, arrays: Mapping[str, Any]) -> None:
    """NumPy arrays in one .npz file, whole or not there; `np.load` opens it without pickles."""
    with written_beside(file) as (out, beside):
        np.savez_compressed(out, allow_pickle=False, **arrays)
        flush(out)
        os.replace(beside, file)
    flush_folder(file.parent)


def end_of(file: Path, begin: int = 0) -> str:
    """The end of what a program has printed into a file, of which nothing before `begin` (bytes)."""
    with file.open("rb") as log:
        log.seek(max(begin, log.seek(0, os.SEEK_END) - END))
        return log.read().decode(errors="replace")


def checksum_file(file: Path) -> Path:
    """Where the checksums of a file stand: of the one that is there, or is about to be, and of the one before."""
    return file.with_name(f"{file.name}.sha256")


def sha256_of(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def is_whole(file: Path) -> bool:
    """Whether a file is there with the content that was written."""
    try:
        return sha256_of(file) in checksum_file(file).read_text(encoding="utf-8").split()
    except OSError:
        return False
