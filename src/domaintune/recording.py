"""The folder of a run: config.yaml, result.json, and where the rest lies. Imports nothing heavy."""

import datetime
import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from domaintune.config import Config, UsageError, differences
from domaintune.writing import write_whole

PACKAGES = ("domaintune", "torch", "lightning", "transformers", "tokenizers", "hydra-core", "numpy")


def process_rank() -> int:
    """This process's rank among those of a distributed run, known before torch is; 0 where there is one process."""
    return next((int(os.environ[key]) for key in ("RANK", "SLURM_PROCID", "LOCAL_RANK") if key in os.environ), 0)


class RunFolder:
    """One run's folder and its result.json, which is written anew at every change.

    Only rank 0 writes; other ranks hold the same object and stay silent.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.result: dict[str, Any] = {}

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def last(self) -> Path:
        return self.checkpoints / "last.ckpt"

    @property
    def best(self) -> Path:
        return self.checkpoints / "best.ckpt"

    @property
    def export(self) -> Path:
        return self.path / "export"

    def earlier(self) -> dict[str, Any] | None:
        """The result.json that an earlier process left here."""
        file = self.path / "result.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None

    def update(self, **changes: Any) -> None:
        """Merges into result.json; dictionaries are merged one level deep."""
        for key, value in changes.items():
            old = self.result.get(key)
            self.result[key] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
        if process_rank() == 0:
            self.path.mkdir(parents=True, exist_ok=True)
            write_whole(self.path / "result.json", json.dumps(self.result, indent=2) + "\n")

    def claim(self, config: Config, hashes: dict[str, str | None], command: str) -> bool:
        """Takes the folder for this config.

        Args:
            hashes: SHA-256 of what the config names: `data` and `weights`.

        Returns:
            whether the run has finished already; `result` is then what it left.

        Raises:
            UsageError: the earlier run of this name had another config, other data or other weights.
        """
        if config.fresh and process_rank() == 0:
            self._move_aside()
        earlier = self.earlier() or {}
        finished = earlier.get("status") == "finished"
        if not finished and not self.last.exists():
            earlier = {}  # nothing to go on from
        if earlier:
            self._refuse_another(config, hashes, earlier)
        self.result = {key: value for key, value in earlier.items() if finished or key not in ("error", "ended")}
        if finished:
            return True
        if process_rank() == 0 and not earlier:
            self.path.mkdir(parents=True, exist_ok=True)
            yaml = OmegaConf.to_yaml(OmegaConf.create(asdict(config)))
            comment = command.replace("\n", "\\n")
            write_whole(self.path / "config.yaml", f"# {comment}\n{yaml}")
        self.update(status="running", command=command, started=now(), versions=versions(), **git_state())
        self.update(**{name: {"sha256": digest} for name, digest in hashes.items()})
        return False

    def _refuse_another(self, config: Config, hashes: dict[str, str | None], earlier: dict[str, Any]) -> None:
        changed = differences(read_config(self.path), asdict(config))
        for name, digest in hashes.items():
            if (old := earlier.get(name, {}).get("sha256")) != digest:
                changed.append((f"{name} (SHA-256)", str(old)[:12], str(digest)[:12]))
        if changed:
            listed = "\n".join(f"  - {key}: {old} -> {new}" for key, old, new in changed)
            raise UsageError(
                f"{self.path} holds a run with another config:\n{listed}\n"
                f"Take another name, or fresh=true to move the old run aside and start over"
            )

    def _move_aside(self) -> None:
        if self.path.exists() and any(self.path.iterdir()):
            aside = self.path.with_name(f"{self.path.name}.before-{now().replace(':', '-')}")
            self.path.rename(aside)
            print(f"moved the earlier run to {aside}")

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Records how the block ended: an exception leaves `failed` or `interrupted` behind, and goes on."""
        try:
            yield
        except (KeyboardInterrupt, SystemExit):
            self.update(status="interrupted", ended=now())
            raise
        except BaseException as error:
            self.update(status="failed", ended=now(), error=f"{type(error).__name__}: {error}")
            raise
        self.update(status="finished", ended=now())


def read_config(folder: Path) -> dict[str, Any]:
    """The config.yaml of a run's folder as plain containers."""
    content = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def now() -> str:
    """The local time to the second, with its offset: 2026-01-31T12:00:00+01:00."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def typed_command() -> str:
    """The command line of this process, as one could type it again."""
    return shlex.join(["python", *sys.argv])


def versions() -> dict[str, str]:
    """Python and the packages that move numbers."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in PACKAGES}}


def git_state() -> dict[str, Any]:
    """Commit of the checkout that this code runs from, and whether it was changed; None where there is no git."""

    def git(*arguments: str) -> str | None:
        try:
            run = subprocess.run(
                ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return run.stdout.strip()

    commit = git("rev-parse", "HEAD")
    return {"git": {"commit": commit, "dirty": bool(git("status", "--porcelain")) if commit else None}}
