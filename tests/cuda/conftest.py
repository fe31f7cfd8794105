"""What runs on a GPU. Without one each test is skipped; `--device cpu` tries them there, on small shapes."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from domaintune import training
from domaintune.config.composing import default_config
from domaintune.preparing import prepare
from domaintune.runs.folder import RunFolder

ROOT = Path(__file__).parents[2]
FIGURES: list[str] = []


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> str:
    name = str(request.config.getoption("--device"))
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no GPU here; --device cpu tries it on a small shape")
    return name


@pytest.fixture
def figure() -> Callable[[str], None]:
    """Prints a line after the tests."""
    return FIGURES.append


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for line in FIGURES:
        terminalreporter.write_line(line)


@pytest.fixture
def train(device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunFolder]:
    """Trains in this process with these overrides and callbacks; gives the run's folder, with its Trainer and task."""
    monkeypatch.setenv("DOMAINTUNE_CACHE", str(tmp_path.parent / "cache"))

    def run(*overrides: str, callbacks: tuple[L.Callback, ...] = (), name: str = "run") -> Any:
        config = default_config(
            f"trainer={'gpu' if device == 'cuda' else 'cpu'}",
            "trainer.max_epochs=-1",
            "trainer.limit_val_batches=4",
            "trainer.val_check_interval=1000",
            "trainer.log_every_n_steps=1000",
            "logger=none",
            "~callbacks.samples",
            f"paths.runs={tmp_path}",
            *overrides,
        )
        prepared, folder = prepare(config), RunFolder(tmp_path / name)
        built: list[Any] = []

        def build(prepared: Any, trainer: Any) -> Any:
            made = plain_build(prepared, trainer)
            built.extend([trainer, made[1]])
            return made

        def build_trainer(*given: Any) -> Any:
            trainer = plain_build_trainer(*given)
            trainer.callbacks[:0] = callbacks
            return trainer

        plain_build, plain_build_trainer = training.build, training.build_trainer
        with monkeypatch.context() as patch:
            patch.setattr(training, "build", build)
            patch.setattr(training, "build_trainer", build_trainer)
            assert not folder.claim(config, prepared.hashes(), "train.py")  # else it has finished
            training.train(prepared, folder)
        folder.trainer, folder.task = built  # type: ignore[attr-defined]
        return folder

    return run


@pytest.fixture
def command(device: str, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `python FILE ARGUMENTS` in a folder of the test."""

    def run(file: str, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        paths = {"DOMAINTUNE_CACHE": str(tmp_path.parent / "cache"), "PYTHONPATH": f"{tmp_path}:{ROOT / 'src'}"}
        paths["PYTHONPATH"] += f":{os.environ.get('PYTHONPATH', '')}"
        done = subprocess.run(
            [sys.executable, str(ROOT / file), *arguments],
            cwd=tmp_path,
            env={**os.environ, **paths},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == code, done.stdout[-3000:] + done.stderr[-3000:]
        return done

    return run
