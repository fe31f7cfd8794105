"""Imports go one way, what is told early imports nothing heavy, and nothing here can run code from a checkpoint."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "domaintune"

# Each imports only what stands above it; those in one line do not import each other.
LEVELS = [
    "errors",
    "config",
    "files",
    "data kernels optim",
    "models",
    "runs",
    "tasks",
    "preparing callbacks",
    "sweeps trainers",
    "training",
    "run_exports certifying",
    "cli",
    "__main__",
]
LEVEL = {part: level for level, parts in enumerate(LEVELS) for part in parts.split()}
WAY_OF_THE_DATA = (
    "library embedded own_files charsets finding left_out cells decoding encoder fields chats chatting formats.text "
    "formats.instructions formats.labels formats.entities formats.pairs formats.choosing rows marking reading inputs "
    "documents deduplicating splitting classes labelling tokenizing batching "
    "windows unigram examples accounting text_notes datamodule language_datamodule example_datamodule"
).split()

MODULES = {
    ".".join(file.relative_to(PACKAGE).with_suffix("").parts): file
    for file in sorted(PACKAGE.rglob("*.py"))
    if file.name != "__init__.py"
}
PROGRAMS = [*MODULES.values(), ROOT / "train.py", *sorted((ROOT / "scripts").rglob("*.py"))]


def nodes(file: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(file.read_text(encoding="utf-8")))


def imported(file: Path) -> set[str]:
    """Full names of what a file imports anywhere in it, also inside functions."""
    found: set[str] = set()
    for node in nodes(file):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: write imports in full"
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def own_imports(name: str) -> set[str]:
    """The modules of this package that one of its modules imports."""
    return {full.removeprefix("domaintune.") for full in imported(MODULES[name])} & MODULES.keys()


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_one_way(name: str) -> None:
    part = name.split(".")[0]
    assert part in LEVEL, f"say in LEVELS where {part} stands"
    others = {module.split(".")[0] for module in own_imports(name)} - {part}
    assert {other for other in others if LEVEL[other] >= LEVEL[part]} == set()


def test_the_package_imports_no_program() -> None:
    programs = {"train", "scripts", *(file.stem for file in (ROOT / "scripts").glob("*.py"))}
    guilty = {name for name, file in MODULES.items() if {full.split(".")[0] for full in imported(file)} & programs}
    assert guilty == set()


def test_inside_data_imports_follow_the_way_of_the_data() -> None:
    names = [name for name in MODULES if name.startswith("data.")]
    assert {name.removeprefix("data.") for name in names} == set(WAY_OF_THE_DATA)
    place = {f"data.{step}": number for number, step in enumerate(WAY_OF_THE_DATA)}
    backwards = {(name, other) for name in names for other in own_imports(name) if place.get(other, -1) >= place[name]}
    assert backwards == set()


def test_no_modules_import_each_other_in_a_circle() -> None:
    TopologicalSorter({name: own_imports(name) for name in MODULES}).prepare()


HEAVY = ("torch", "lightning", "transformers", "datasets", "matplotlib", "peft")


def heavy_modules_after(program: str, folder: Path) -> list[str]:
    """Which of HEAVY a fresh interpreter has loaded when `program` has run."""
    listing = f"\nimport json, sys\nprint(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    environment = {**os.environ, "HF_HOME": str(folder), "HF_HUB_OFFLINE": "1"}
    environment.pop("HF_HUB_CACHE", None)
    run = subprocess.run(
        [sys.executable, "-c", program + listing],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def test_config_data_and_checkpoint_are_checked_before_anything_heavy_is_imported(tmp_path: Path) -> None:
    rows = {suffix: [f"text {number} of {suffix}" for number in range(30)] for suffix in ("txt", "md", "csv", "jsonl")}
    (tmp_path / "data").mkdir()
    for suffix, texts in rows.items():
        lines = [json.dumps({"text": text}) for text in texts] if suffix == "jsonl" else texts
        (tmp_path / "data" / f"words.{suffix}").write_text("\n".join(["text"] * (suffix == "csv") + lines))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "tokenizer.json").write_text("{}")
    (tmp_path / "model" / "config.json").write_text('{"n_positions": 1024}')
    program = f"""
from omegaconf import OmegaConf
from domaintune.config.checks import check
from domaintune.preparing import prepare
from domaintune.runs.folder import RunFolder
import domaintune.cli.exiting

composed = {{
    "name": "light",
    "model": {{"checkpoint": "model", "init": "random"}},
    "task": {{"name": "causal_lm", "monitor": "val/loss", "mode": "min"}},
    "data": {{"path": {str(tmp_path / "data")!r}, "unit": "line"}},
    "scheduler": {{"name": "cosine"}},
    "trainer": {{"max_epochs": 1}},
    "paths": {{"cache": "cache"}},
}}
config = check(OmegaConf.create(composed))
assert len(prepare(config).splits.of("train")) > 80
"""
    assert heavy_modules_after(program, tmp_path) == []


def test_looking_for_a_checkpoint_of_the_hub_imports_nothing_heavy(tmp_path: Path) -> None:
    program = """
from domaintune.errors import UsageError
from domaintune.models.locating import locate
try:
    locate("someone/some-model")
except UsageError as error:
    assert "was not found" in str(error)
"""
    assert heavy_modules_after(program, tmp_path) == []


def test_a_leaderboard_needs_no_torch(tmp_path: Path) -> None:
    run = tmp_path / "sweep" / "optim.lr=0.1"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("optim: {lr: 0.1}\ntask: {name: causal_lm, monitor: val/loss, mode: min}\n")
    (run / "result.json").write_text('{"status": "finished", "metrics": {"after": {"val/loss": 1.0}}}')
    program = "from pathlib import Path; from domaintune.sweeps.leaderboard import write; write(Path('sweep'))"
    assert heavy_modules_after(program, tmp_path) == []


def test_train_py_imports_nothing_heavy_before_its_main(tmp_path: Path) -> None:
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import train"
    assert heavy_modules_after(program, tmp_path) == []


def calls(file: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """(called, {keyword: value}) of every call in a file, as it is written there."""
    for node in nodes(file):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {str(word.arg): ast.unparse(word.value) for word in node.keywords}


def guilty(files: Iterator[Path]) -> list[str]:
    return sorted({file.relative_to(ROOT).as_posix() for file in files})


def test_no_remote_code_is_trusted() -> None:
    trusting = (f for f in PROGRAMS for _, words in calls(f) if words.get("trust_remote_code", "False") != "False")
    assert guilty(trusting) == []


def test_checkpoints_are_opened_as_weights_only() -> None:
    def opens(called: str, words: dict[str, str]) -> bool:
        return called == "torch.load" or "ckpt_path" in words

    unsafe = (f for f in PROGRAMS for call in calls(f) if opens(*call) and call[1].get("weights_only") != "True")
    assert guilty(unsafe) == []


def test_nothing_is_pickled() -> None:
    picklers = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
    pickling = (file for file in PROGRAMS if {name.split(".")[0] for name in imported(file)} & picklers)
    assert guilty(pickling) == []
