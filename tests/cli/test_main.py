"""The `domaintune` command finds its commands, in a clone and without one."""

import os
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest

from domaintune.cli import main as module
from domaintune.config import programs
from domaintune.config.programs import CLONE, program, script_of, usage_of


@pytest.mark.parametrize("name", module.COMMANDS)
def test_each_command_is_a_module_with_a_main_and_a_script_of_a_clone(name: str) -> None:
    command = import_module(f"domaintune.cli.{name}")
    assert callable(command.main)
    assert command.__doc__
    assert f"domaintune.cli.{name} import main" in (CLONE / script_of(name)).read_text()


def test_every_script_of_a_clone_is_a_command_but_the_benchmark() -> None:
    scripts = {file.stem for file in (CLONE / "scripts").glob("*.py")}
    assert scripts - {"benchmark"} == set(module.COMMANDS) - {"train"}


@pytest.mark.parametrize("arguments", [[], ["--help"], ["help"]])
def test_help_names_every_command(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", "domaintune", *arguments], capture_output=True, text=True, check=True)
    assert all(f"\n  {name} " in done.stdout for name in module.COMMANDS)


def test_another_word_is_refused_with_all_commands() -> None:
    done = subprocess.run([sys.executable, "-m", "domaintune", "trian"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: there is no command trian; did you mean train?\n")
    assert "leaderboard" in done.stderr


def test_its_version_is_that_of_the_package() -> None:
    done = subprocess.run([sys.executable, "-m", "domaintune", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"domaintune {version('domaintune')}\n"


def test_help_on_a_command_is_that_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "help", "prune") == (["domaintune.cli.prune"], ["--help"])


def test_a_shell_completes_behind_train(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMP_LINE", "domaintune train mod")
    run(monkeypatch, "-sc", "query=bash")
    assert os.environ["COMP_LINE"] == "domaintune mod"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[list[str], list[str]]:
    """What is imported, and the arguments that it gets."""
    asked: list[str] = []

    class Command:
        @staticmethod
        def main() -> None:
            pass

    monkeypatch.setattr(module, "import_module", lambda name: asked.append(name) or Command)
    monkeypatch.setattr(sys, "argv", ["domaintune", *arguments])
    module.main()
    return asked, sys.argv[1:]


def test_a_command_gets_the_arguments_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "predict", "run=a", "--help") == (["domaintune.cli.predict"], ["run=a", "--help"])


@pytest.mark.parametrize("arguments", [["seed=1", "name=train"], ["-m", "seed=0,1"], ["~callbacks.samples"]])
def test_without_a_command_it_trains(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    assert run(monkeypatch, *arguments) == (["domaintune.cli.train"], arguments)


def test_commands_are_named_as_they_are_called(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = "python scripts/make_tokenizer.py out=A\npython train.py -m seed=0,1"
    assert usage_of(usage) == usage
    assert program("export") == "python scripts/export.py"
    monkeypatch.setattr(sys, "argv", [str(Path(sys.executable).with_name("domaintune")), "seed=1"])
    assert usage_of(usage) == "domaintune make_tokenizer out=A\ndomaintune train -m seed=0,1"
    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.setattr(programs, "IS_CLONE", False)
    assert program("export") == "domaintune export"


def test_what_can_be_pasted_stands_beside_the_python_that_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    assert programs.program_from_here("evaluate") == [sys.executable, str(CLONE / "scripts/evaluate.py")]
    monkeypatch.setattr(sys, "executable", str(tmp_path / ".venv/bin/python"))
    monkeypatch.setattr(sys, "argv", ["/somewhere/domaintune"])
    assert programs.program_from_here("evaluate") == ["/somewhere/domaintune", "evaluate"]
    monkeypatch.setattr(programs, "_is_module", lambda: True)
    monkeypatch.setattr(sys, "argv", ["/somewhere/__main__.py"])
    assert programs.program_from_here("evaluate") == [".venv/bin/python", "-m", "domaintune", "evaluate"]
