"""The package from a wheel, in a folder that is no clone: the `domaintune` command has all that a clone has."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import LIMIT_SECONDS, ROOT, environment_of, result_of

from domaintune.cli.main import COMMANDS

pytestmark = pytest.mark.slow
Run = Callable[..., str]


@pytest.fixture(scope="module")
def domaintune(tmp_path_factory: pytest.TempPathFactory, small_model: Path) -> Run:
    """Runs `domaintune ARGUMENTS` of a wheel in an empty folder, `run.home`, and returns what it prints."""
    made = tmp_path_factory.mktemp("installed")
    source, home = made / "source", made / "home"
    home.mkdir()
    source.mkdir()
    for name in (
        "pyproject.toml",
        "setup.py",
        "MANIFEST.in",
        "README.md",
        "LICENSE",
        "src",
        "conf",
    ):  # no build/ of old
        kind = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        kind(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(made / "site")]
    subprocess.run([*pip, str(source)], check=True)
    command = made / "site" / "bin" / "domaintune"

    def run(*arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            [command, *arguments],
            cwd=home,
            env=environment_of(made, PYTHONPATH=str(made / "site")),
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    run.home = home  # type: ignore[attr-defined]
    run.command = command  # type: ignore[attr-defined]
    return run


def test_it_trains_measures_and_writes(domaintune: Run, quick: list[str]) -> None:
    printed = domaintune("train", "name=first", *quick)
    folder: Path = domaintune.home / "logs" / "runs" / "first"  # type: ignore[attr-defined]
    result = result_of(folder)
    assert result["status"] == "finished"
    assert result["command"].startswith("domaintune train name=first ")
    assert result["git"] is None or result["git"]["commit"] is None
    assert "loss" in domaintune("evaluate", "run=first")
    assert domaintune("generate", "run=first", "prompt=The ", "max_new_tokens=3").startswith("The ")
    tried = [line.split()[0:2] for line in printed.splitlines() if re.match(r"  \S*domaintune \w+ ", line)]
    assert [words[1] for words in tried] == ["generate", "evaluate", "train"]
    assert all(Path(words[0]).resolve() == domaintune.command.resolve() for words in tried)  # type: ignore[attr-defined]


def test_two_processes_and_the_trials_of_a_sweep_are_started_as_it_was(domaintune: Run, quick: list[str]) -> None:
    two = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "data.batch_size=2")
    domaintune("train", "name=two", *quick, *two)
    printed = domaintune("train", "-m", "name=seeds", *quick, "seed=0,1")
    assert "domaintune evaluate run=" in printed
    assert "domaintune evaluate run=" in domaintune("leaderboard", "name=seeds")


def test_a_leaf_of_ones_own_wins_over_ours_of_that_name(domaintune: Run, small_model: Path, quick: list[str]) -> None:
    leaf: Path = domaintune.home / "mine" / "model" / "gpt2.yaml"  # type: ignore[attr-defined]
    leaf.parent.mkdir(parents=True)
    leaf.write_text(f"defaults: [_base]\ncheckpoint: {small_model}\n")
    (leaf.parents[1] / "optim").mkdir()
    (leaf.parents[1] / "optim" / "fast.yaml").write_text("defaults: [adamw]\nlr: 1.0e-2\n")
    rest = [each for each in quick if not each.startswith(("model.checkpoint=", "optim.lr="))]
    own = ("--config-dir", "mine", "model=gpt2", "optim=fast")
    domaintune("train", "name=own", *own, *rest)
    domaintune("train", "-m", "name=owns", *own, *rest, "seed=0,1")
    domaintune("train", "name=own_two", *own, *rest, "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")
    assert "fast" in domaintune("train", "--config-dir", "mine", "--help")


def test_it_certifies(domaintune: Run) -> None:
    assert "4 of 4 hold" in domaintune("certify", "gradients", "--micro", "16", "--processes", "1")


def test_a_wrong_setting_and_help_name_the_command(domaintune: Run) -> None:
    assert "(domaintune train --cfg job shows them all)" in domaintune("train", "optim.larning=1", code=2)
    assert "domaintune train data.path=~/notes" in domaintune("train", "--help")
    assert "domaintune prune" in domaintune("prune", "--help")
    for name in COMMANDS:
        assert not re.findall(r"\w+\.py", domaintune(name, "--help"))


def test_it_lies_where_it_was_installed(domaintune: Run) -> None:
    site = domaintune.command.parents[1]  # type: ignore[attr-defined]
    program = "import domaintune, domaintune.config.programs as p; print(domaintune.__file__, p.IS_CLONE, p.CONF)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(site)},
        cwd=site.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [str(site / "domaintune/__init__.py"), "False", str(site / "domaintune/conf")]
