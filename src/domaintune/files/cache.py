"""Folders that are made once, whole or not at all, and found again by what they were made from."""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import AcquireReturnProxy, FileLock, Timeout

from domaintune.errors import UsageError

PATIENCE = 2  # seconds to wait for a lock in silence
CONTENTS = "contents.json"  # written last: the key, and the size of every other file


def cached(cache: str, kind: str, key: Mapping[str, Any], make: Callable[[Path], None]) -> Path:
    """The folder `cache/kind/<hash of the key>`, made by `make(folder)` unless it is there.

    Made under another name and renamed when it is complete and on the disk, so a maker that was killed leaves nothing
    that could be taken for an entry; one that lost bytes afterwards is known by its sizes and made again. A second
    process that wants the same entry waits for the first. Entries can be deleted at any time between runs.

    Args:
        key: everything that the content depends on, and nothing else; plain values that JSON can hold.
        make: fills an empty folder.

    Raises:
        UsageError: the cache folder can't be written or the disk is full.
    """
    text = json.dumps(key, sort_keys=True)
    folder = Path(cache).expanduser() / kind / hashlib.sha256(text.encode()).hexdigest()[:32]
    if is_complete(folder):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _lock(folder.with_suffix(".lock")):
            if not is_complete(folder):
                _make(folder, key, make)
    except OSError as error:
        if not _concerns(error, folder.parent):
            raise
        raise unwritable(cache, folder.parent, error) from error
    return folder


def _lock(file: Path) -> AcquireReturnProxy:
    """Held until the end of a `with` block; the system frees the lock of a process that was killed."""
    lock = FileLock(file)
    try:
        return lock.acquire(timeout=PATIENCE)
    except Timeout:
        print(f"waiting for another process that is making the same {file.parent.name}", file=sys.stderr)
        return lock.acquire()


def unwritable(cache: str, place: Path | str, error: OSError) -> UsageError:
    """What a person is told where the cache can't hold something."""
    reason = f"{place} can't be written ({error.strerror or error})"
    return UsageError(f"paths.cache={cache}: {reason}; DOMAINTUNE_CACHE names another folder")


def _concerns(error: OSError, folder: Path) -> bool:
    """Whether it is about `folder`, what lies in it, or a folder above that it would have been made in."""
    if not isinstance(error.filename, str | Path):
        return True  # of a file that is open already, as when the disk is full
    place = Path(error.filename)
    return place.is_relative_to(folder) or folder.is_relative_to(place)


def _make(folder: Path, key: Mapping[str, Any], make: Callable[[Path], None]) -> None:
    unfinished = folder.with_suffix(".unfinished")
    for old in (folder, unfinished):
        if old.exists():  # damaged, or left by a process that was killed: nobody else is here, we hold the lock
            shutil.rmtree(old)
    unfinished.mkdir()
    try:
        make(unfinished)
        sizes = {file.name: file.stat().st_size for file in sorted(unfinished.iterdir())}
        (unfinished / CONTENTS).write_text(json.dumps({"key": key, "sizes": sizes}, indent=2) + "\n", encoding="utf-8")
        for file in unfinished.iterdir():
            _flush(file)
        os.replace(unfinished, folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _flush(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_complete(folder: Path) -> bool:
    """Whether an entry is there with every file as long as it was written."""
    try:
        sizes = json.loads((folder / CONTENTS).read_text(encoding="utf-8"))["sizes"]
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
