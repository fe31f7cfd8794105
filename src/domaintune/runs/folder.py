"""The folder of a run: config.yaml, result.json, and where the rest lies. Imports nothing heavy."""

import datetime
import importlib.metadata
import json
import platform
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from itertools import takewhile
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from domaintune.config.checks import check, rates_of
from domaintune.config.comparison import CHECKPOINT_NAME, DATA_NAMES, differences, has_default_lr, is_longer
from domaintune.config.overrides import typed_arguments
from domaintune.config.programs import CLONE, IS_CLONE, is_called_as_command, program
from domaintune.config.schema import Config
from domaintune.config.wording import escaped_lines, for_shell
from domaintune.errors import RunError, UsageError
from domaintune.files.lock import Lock
from domaintune.files.writing import PART, checksum_file, is_whole, write_whole
from domaintune.runs.ranks import is_first_process, is_one_of_several, is_started_again

Change = tuple[str, Any, Any]  # a setting, its old and its new value
HASHED = ("data", "weights", "checkpoint", "generation")
STAMP = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d")  # a run's name where none is given
PACKAGES = ("domaintune", "torch", "lightning", "transformers", "tokenizers", "hydra-core", "numpy")


class RunFolder:
    """One run's folder and its result.json, which is written anew at every change.

    Only rank 0 writes; other ranks hold the same object and stay silent.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.result: dict[str, Any] = {}
        self.resume_from: Path | None = None  # the checkpoint to go on from
        self._lock = Lock(path)

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def last(self) -> Path:
        return self.checkpoints / "last.ckpt"

    @property
    def previous(self) -> Path:
        return self.checkpoints / "previous.ckpt"

    @property
    def best(self) -> Path:
        return self.checkpoints / "best.ckpt"

    def only_for_training(self) -> list[Path]:
        """Checkpoints to go on from, and damaged ones. A finished run needs them only to train longer."""
        checkpoints = (self.last, self.previous)
        damaged = self.checkpoints.glob("*.damaged")
        files = [*checkpoints, *map(checksum_file, checkpoints), *sorted(damaged)]
        return [file for file in files if file.is_file()]

    @property
    def validation(self) -> Path:
        """What best.ckpt makes of each validation document."""
        return self.path / "validation.npz"

    @property
    def output(self) -> Path:
        """What the run's commands printed."""
        return self.path / "output.log"

    @property
    def export(self) -> Path:
        return self.path / "export"

    def earlier(self) -> dict[str, Any] | None:
        """The result.json that an earlier process left here."""
        file = self.path / "result.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None

    def hashes(self) -> dict[str, str | None]:
        """SHA-256 of what the earlier process was given, by the names of `claim`; those that it has recorded."""
        earlier = self.earlier() or {}
        return {name: earlier[name]["sha256"] for name in HASHED if "sha256" in earlier.get(name, {})}

    def update(self, **changes: Any) -> None:
        """Merges into result.json; dictionaries are merged one level deep."""
        for key, value in changes.items():
            old = self.result.get(key)
            self.result[key] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
        if is_first_process():
            self.path.mkdir(parents=True, exist_ok=True)
            write_whole(self.path / "result.json", json.dumps(self.result, indent=2) + "\n")

    def claim(self, config: Config, hashes: dict[str, str | None], command: str) -> bool:
        """Takes the folder for this config.

        Args:
            hashes: SHA-256 of what the config names: `data`, `weights`, and the `checkpoint`'s config and tokenizer.
                Where they are those of the earlier run, data and checkpoint may lie elsewhere than they did; a learning
                rate that isn't set stays that of the earlier run, and is set in `config`.

        Returns:
            whether the run has finished already; `result` is then what it left.

        Raises:
            UsageError: another process has the folder, or the earlier run of this name had another config, other data
                or other weights, or the folder can't be written.
            RunError: no checkpoint of the earlier run is whole.
        """
        try:
            return self._claim(config, hashes, command)
        except BaseException as error:
            self._lock.release()
            if isinstance(error, OSError):
                raise UsageError(f"{self.path} can't be written: {error}") from error
            raise

    def _claim(self, config: Config, hashes: dict[str, str | None], command: str) -> bool:
        if STAMP.fullmatch(config.name) and is_one_of_several() and "name=" not in command:
            raise UsageError("several processes were started, and each would take a name of its own: set name=...")
        fresh = config.fresh and not is_started_again()
        if is_first_process():
            if fresh or self.earlier() is None:
                self._refuse_nested(Path(config.paths.runs).absolute())
            self._lock.take()
            if fresh:
                self._move_aside()
                self._lock.take()
            self._clear()
        # Where `fresh` moves a folder, another rank may still see it.
        lr = config.optim.lr
        earlier, longer = ({}, "") if fresh else self._earlier_of(config, hashes)
        if earlier.get("status") == "finished" and not longer:
            self._lock.release()
            self.result = earlier
            return True
        self.result = {key: value for key, value in earlier.items() if key not in ("error", "ended")}
        if not earlier and is_first_process():
            self._remove_results()  # of an earlier try, maybe with another config, that left nothing to go on from
        if earlier:
            self.resume_from = self._newest_whole_checkpoint()
            kept = f"; with the optim.lr it began with, {config.optim.lr:g}" if config.optim.lr != lr else ""
            say(f"going on from {self.resume_from}{longer}{kept}")
        # Before the config: a run that is to train longer is known as unfinished from here on, whatever is killed.
        self.update(status="running", command=command, started=now(), versions=versions(), **git_state())
        if is_first_process():
            yaml = OmegaConf.to_yaml(OmegaConf.create(asdict(config)))
            comment = command.replace("\n", "\\n")
            write_whole(self.path / "config.yaml", f"# {comment}\n{yaml}")
        self.update(**{name: {"sha256": digest} for name, digest in hashes.items()})
        return False

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes out of the folder while the block runs. Raises UsageError where one is in it."""
        self._lock.take()
        try:
            yield
        finally:
            self._lock.release()

    def has_finished(self, config: Config, hashes: dict[str, str | None]) -> bool:
        """Whether a run of this config has finished here. Raises UsageError where it was one of another config."""
        earlier, longer = self._earlier_of(config, hashes)
        return earlier.get("status") == "finished" and not longer

    def _earlier_of(self, config: Config, hashes: dict[str, str | None]) -> tuple[dict[str, Any], str]:
        """The result of the run to report or to go on with, empty where there is none, and what makes it longer."""
        earlier = self.earlier() or {}
        if earlier.get("status") != "finished" and not (self.last.exists() or self.previous.exists()):
            return {}, ""  # nothing to go on from
        longer = self._refuse_another(config, hashes, earlier)
        if longer and not (self.last.exists() or self.previous.exists()):
            raise UsageError(
                f"{self.path} can't train longer{longer.replace('; trained longer', '')}: checkpoint.keep=best or "
                f"{program('prune')} removed the last weights. Take another name, and start from its best ones with "
                f"{for_shell(f'model.checkpoint=run:{self.path}')}; or fresh=true to start over"
            )
        return earlier, longer

    def _newest_whole_checkpoint(self) -> Path:
        """last.ckpt, or where that is damaged or missing the one before it."""
        if self.best.exists() and not is_whole(self.best):
            raise RunError(f"{_ailing(self.best)}, and the run is to end with it; fresh=true starts over")
        damaged: list[Path] = []
        for file in (self.last, self.previous):
            if is_whole(file):
                for other in damaged if is_first_process() else ():
                    other.replace(other.with_name(f"{other.name}.damaged"))  # else it would be kept as the one before
                return file
            say(_ailing(file))
            damaged += [file] if file.exists() else []
        raise RunError(f"{self.path} has no whole checkpoint to go on from; fresh=true starts over")

    def _refuse_nested(self, runs: Path) -> None:
        """Raises UsageError where one run's folder would lie in another's, which fresh=true would then take with it."""
        path = self.path.absolute()
        above = takewhile(lambda parent: parent != runs, path.parents) if runs in path.parents else ()
        if outer := next(filter(_holds_a_run, above), None):
            raise UsageError(f"name={path.relative_to(runs)}: {outer} is a run's own folder; take another name")
        within = (file.parent for file in self.path.glob("*/**/result.json"))
        if inner := next(filter(_holds_a_run, within), None):
            raise UsageError(f"{self.path} holds another run, {inner}; take another name")

    def _remove_results(self) -> None:
        for file in (self.best, checksum_file(self.best), self.path / "validation.npz"):
            file.unlink(missing_ok=True)
        shutil.rmtree(self.export, ignore_errors=True)

    def _clear(self) -> None:
        """Removes what killed processes left unfinished. No other process is at work here."""
        for part in self.path.rglob(f"*{PART}"):
            shutil.rmtree(part) if part.is_dir() else part.unlink()

    def _refuse_another(self, config: Config, hashes: dict[str, str | None], earlier: dict[str, Any]) -> str:
        """What lets the run train longer than before, in words."""
        before = read_config(self.path)
        changed = self._without_moves(differences(before, asdict(config)), hashes, before, config)
        if earlier.get("steps") == config.trainer.max_steps:  # what ended it; an earlier version recorded epochs, too
            changed = [change for change in changed if change[0] != "trainer.max_epochs"]
        longer = [change for change in changed if is_longer(*change)]
        changed = [change for change in changed if change not in longer]
        for name in HASHED:
            if name not in ("data", "weights") and not (name in earlier and name in hashes):
                continue  # an earlier version didn't record it
            if (old := earlier.get(name, {}).get("sha256")) != (digest := hashes[name]):
                changed.append((f"{name} (SHA-256)", str(old)[:12], str(digest)[:12]))
        if changed:
            listed = "\n".join(f"  - {key}: {old} -> {new}" for key, old, new in changed)
            raise UsageError(
                f"{self.path} holds a run with another config:\n{listed}\n"
                f"Take another name, or fresh=true to move the old run aside and start over"
            )
        return "".join(f"; trained longer: {key} {old} -> {new}" for key, old, new in longer)

    def _without_moves(
        self, changed: list[Change], hashes: Mapping[str, str | None], before: dict[str, Any], config: Config
    ) -> list[Change]:
        """The differences without those that come of other names for the same data and the same checkpoint."""
        old, moved = self.hashes(), set()
        if old.get("data") == hashes.get("data"):
            moved |= {*DATA_NAMES}
        same = {old[name] == hashes[name] for name in ("weights", "checkpoint") if name in old and name in hashes}
        known = any(old.get(name) is not None for name in ("weights", "checkpoint"))
        if same == {True} and known:
            moved.add(CHECKPOINT_NAME)
            if has_default_lr(before) and has_default_lr(asdict(config)):
                moved.add("optim.lr")
                _keep_lr(before, config)
        return [change for change in changed if change[0] not in moved]

    def how_to_resume(self) -> str:
        """What goes on with a run that has not finished."""
        named = f" with name={for_shell(self.path.name)}" if STAMP.fullmatch(self.path.name) else ""
        if "fresh=true" in shlex.split(self.result.get("command", "")):
            named += " without fresh=true"
        if not (self.last.exists() or self.previous.exists()):
            return f"The same command{named} starts over: there is no checkpoint yet"
        asks = "; until then its best.ckpt can be evaluated" if self.best.exists() else ""
        return f"The same command{named} resumes from {self.last}{asks}"

    def _move_aside(self) -> None:
        if any(file != self._lock.file for file in self.path.iterdir()):
            aside = self.path.with_name(f"{self.path.name}.before-{now().replace(':', '-')}")
            self.path.rename(aside)
            (aside / self._lock.file.name).unlink()
            print(f"moved the earlier run to {aside}")
        self._lock.release()

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Records how the block ended: an exception leaves `failed` or `interrupted` behind, and goes on."""
        try:
            yield
        except (KeyboardInterrupt, SystemExit):
            with suppress(OSError):
                self.update(status="interrupted", ended=now())
                say(f"interrupted. {self.how_to_resume()}")
            raise
        except BaseException as error:
            with suppress(OSError):  # where the disk is full, that is what is told
                self.update(status="failed", ended=now(), error=f"{type(error).__name__}: {error}")
            raise
        else:
            self.update(status="finished", ended=now())
        finally:
            self._lock.release()


def _holds_a_run(folder: Path) -> bool:
    return all((folder / name).is_file() for name in ("config.yaml", "result.json"))


def _keep_lr(before: dict[str, Any], config: Config) -> None:
    """The rate that was measured for a checkpoint stays, and is known under the checkpoint's new name, too."""
    if config.optim.lr != before["optim"]["lr"]:
        name = rates_of(config.peft.name)[0]
        measured = {**getattr(config.model, name), config.model.checkpoint: before["optim"]["lr"]}
        setattr(config.model, name, measured)
        config.optim.lr = before["optim"]["lr"]


def _ailing(file: Path) -> str:
    """What is wrong with a checkpoint that isn't known to be whole."""
    if not file.exists():
        return f"{file} is missing"
    if not checksum_file(file).exists():
        return f"{file} has lost its checksum ({checksum_file(file).name}), so it may be damaged"
    return f"{file} is damaged: it differs from its checksum, or can't be read"


def say(text: str) -> None:
    """Prints a line, once for all processes of a run."""
    if is_first_process():
        print(escaped_lines(text), flush=True)


@contextmanager
def optional(what: str) -> Iterator[None]:
    """A block that a run can do without, as a picture or a table: its exceptions are told, and the run goes on.

    Args:
        what: the words for it, as in "the table could not be printed".
    """
    try:
        yield
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        with suppress(Exception):
            say(f"note: {what}: {type(error).__name__}: {first}")


def read_config(folder: Path) -> dict[str, Any]:
    """The config.yaml of a run's folder as plain containers."""
    content = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def config_of_run(folder: Path) -> Config:
    """The config that a run was made with, without what only its training was told."""
    settings = read_config(folder)
    # An earlier version took schedules and directions that are refused today.
    settings["task"]["mode"], settings["scheduler"] = None, {"name": "constant"}
    return check(OmegaConf.create(settings))


def now() -> str:
    """The local time to the second, with its offset: 2026-01-31T12:00:00+01:00."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def typed_command() -> str:
    """The command line of this process, as one could type it again."""
    arguments = typed_arguments()
    return shlex.join(["domaintune", "train", *arguments[1:]] if is_called_as_command() else ["python", *arguments])


def versions() -> dict[str, str]:
    """Python and the packages that move numbers."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in PACKAGES}}


def git_state() -> dict[str, Any]:
    """Commit of the clone that this code runs from, and whether it was changed; None without a clone or git."""

    def git(*arguments: str) -> str | None:
        if not IS_CLONE:
            return None
        try:
            run = subprocess.run(["git", *arguments], cwd=CLONE, capture_output=True, text=True, timeout=10, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        return run.stdout.strip()

    commit = git("rev-parse", "HEAD")
    return {"git": {"commit": commit, "dirty": bool(git("status", "--porcelain")) if commit else None}}
