"""The model of a run for whoever wants to use it: its export/, or its best weights so far."""

import sys
from contextlib import redirect_stdout
from pathlib import Path

from domaintune.config.checks import has_export
from domaintune.config.wording import escaped
from domaintune.errors import UsageError
from domaintune.files.cache import cached
from domaintune.files.writing import checksum_file, is_whole
from domaintune.runs.folder import HASHED, RunFolder, config_of_run

FORMAT = 1  # raise when the same checkpoint would be exported otherwise


def model_of_run(folder: Path, cache: str) -> Path:
    """The export of a run; of one that has not finished, an export of its best.ckpt, kept in the cache.

    Raises:
        UsageError: the run has not come so far as to have a best.ckpt, or that is damaged.
    """
    run = RunFolder(folder)
    if has_export(folder):
        return run.export
    _check_best(run)
    lacks = "has no export/" if (run.earlier() or {}).get("status") == "finished" else "has not finished"
    told = f"note: the run in {folder} {lacks}: its best weights so far are taken"
    print(escaped(told), file=sys.stderr)  # what is written from them is on standard output
    key = {"format": FORMAT, "best": checksum_file(run.best).read_text(encoding="utf-8")}
    return cached(cache, "exports", key, lambda made: _export_into(run, made))


def export_run(folder: Path) -> Path:
    """Writes export/ into the folder of a run that has not finished, if it isn't there already; returns it.

    Raises:
        UsageError: another process trains the run, or it has no best.ckpt yet, or that is damaged.
    """
    run = RunFolder(folder)
    if has_export(folder):
        return run.export
    _check_best(run)
    with run.locked():
        _export(run, run.export)
    return run.export


def _check_best(run: RunFolder) -> None:
    if not run.best.exists():
        raise UsageError(f"{run.path} has no best.ckpt yet: its run has not been validated. {run.how_to_resume()}")
    if not is_whole(run.best):
        raise UsageError(f"{run.best} is damaged: it differs from its checksum, or has lost it")


def _export_into(run: RunFolder, made: Path) -> None:
    """Into a folder that is there already."""
    _export(run, made / "export")
    for part in sorted((made / "export").iterdir()):
        part.rename(made / part.name)
    (made / "export").rmdir()


def _export(run: RunFolder, folder: Path) -> None:
    from domaintune.preparing import prepare
    from domaintune.training import export_unfinished

    with redirect_stdout(sys.stderr):  # what is printed besides belongs to whoever asked for the export
        prepared = prepare(config_of_run(run.path))
    recorded, best = run.hashes(), checksum_file(run.best).read_bytes()
    if prepared.labels is not None and prepared.hashes()["data"] != recorded.get("data"):
        raise UsageError(f"{run.path}: the texts that it is trained on have changed; its labels may be others now")
    if any(prepared.hashes()[name] != recorded[name] for name in HASHED[1:] if name in recorded):
        raise UsageError(
            f"{run.path}: {prepared.checkpoint.name}, which it started from, has changed; its best.ckpt may hold "
            f"only what was trained of it"
        )
    with redirect_stdout(sys.stderr):
        export_unfinished(prepared, run, folder)
    if checksum_file(run.best).read_bytes() != best:
        raise UsageError(f"{run.path}: its training wrote another best.ckpt meanwhile; try again")
