"""Files that are whole or not there."""

import os
import tempfile
from pathlib import Path


def write_whole(file: Path, text: str) -> None:
    """Writes beside, flushes to the disk and renames: a reader finds the old text or the new one, never a part.

    Two writers at once don't mix; the last one wins. What fails leaves nothing behind.
    """
    descriptor, beside = tempfile.mkstemp(dir=file.parent, prefix=f"{file.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        os.chmod(beside, 0o644)  # a temporary file is for its owner alone
        os.replace(beside, file)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise
