"""What a person sees of a sweep: in TensorBoard, in the report and in the terminal."""

import json
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import browser
import pytest
from conftest import ROOT

RATES = ("0.001", "0.01")


@contextmanager
def tensorboard(logs: Path) -> Iterator[str]:
    """The address of a TensorBoard, started as `make tensorboard` does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logs), "--host", "127.0.0.1"]
    server = subprocess.Popen([*command, "--port", str(port)], stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            return len(json.load(urllib.request.urlopen(f"{address}/data/runs", timeout=5))) == 4
        except OSError:
            return False

    try:
        browser.wait(answers, 60, "TensorBoard")
        yield address
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture(scope="module")
def sweep(command, small) -> Path:
    """A sweep of four trials."""
    grid = [f"optim.lr={','.join(RATES)}", "scheduler=cosine,constant"]
    settings = [each for each in small if not each.startswith("optim.lr")]
    done = command("train.py", "-m", "name=rates", *grid, *settings)
    assert done.returncode == 0, done.stderr
    return command.home / "logs" / "sweeps" / "rates"


@pytest.mark.slow
def test_the_hparams_tab_shows_what_was_varied_and_the_final_metrics_and_nothing_else(sweep, tmp_path):
    results = {file.parent.name: json.loads(file.read_text()) for file in sweep.glob("*/result.json")}
    losses = {f"{result['metrics']['after']['val/loss']:.5g}" for result in results.values()}
    varied, metrics = {"optim.lr", "scheduler"}, {"val/best_loss", "val/best_perplexity", "val/best_bits_per_byte"}
    with tensorboard(sweep) as address, browser.started(tmp_path / "profile") as port:
        text, picture = browser.look(port, f"{address}/#hparams", {*varied, *metrics, *losses})
        assert {"cosine", "constant"} <= set(text.split())
        for other in ("weight_decay", "max_steps", "block_size", "seed", "checkpoint"):
            assert other not in text
        names = json.load(urllib.request.urlopen(f"{address}/data/runs"))
        assert set(names) == set(results)
    assert len(picture) > 20_000, "not an empty page"


@pytest.mark.slow
def test_the_report_opens_in_a_browser(command, sweep, tmp_path):
    shown = command("scripts/leaderboard.py", "name=rates")
    assert shown.returncode == 0, shown.stderr
    assert "not decidable with fewer than three seeds" in shown.stdout
    assert (sweep / "leaderboard.csv").exists()
    words = {"4 of 4 trials finished", "optim.lr", "scheduler.name", "Validation while training", "optimizer steps"}
    with browser.started(tmp_path / "profile") as port:
        browser.look(port, f"file://{sweep / 'report.html'}", words)


def test_make_tensorboard_stays_on_this_machine():
    for given, folder in (([], "logs"), (["sweep=rates"], "logs/sweeps/rates")):
        printed = subprocess.run(
            ["make", "--dry-run", "--assume-old=.venv/installed", "tensorboard", *given],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert f"tensorboard --logdir {folder} --host 127.0.0.1 --port 6006" in printed


def test_make_tensorboard_refuses_a_sweep_that_is_not_there_and_takes_a_port(tmp_path):
    line = ["make", "-f", str(ROOT / "Makefile"), "--assume-old=.venv/installed", "tensorboard"]
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "installed").touch()
    program = tmp_path / ".venv" / "bin" / "tensorboard"
    program.write_text('#!/bin/sh\necho "$@"\n')
    program.chmod(0o755)
    (tmp_path / "logs" / "sweeps" / "rates").mkdir(parents=True)
    wrong = subprocess.run([*line, "sweep=rate"], cwd=tmp_path, capture_output=True, text=True)
    assert wrong.returncode == 2
    assert "there is no logs/sweeps/rate" in wrong.stdout
    right = subprocess.run([*line, "sweep=rates", "port=7007"], cwd=tmp_path, capture_output=True, text=True)
    assert right.returncode == 0, right.stderr
    assert "http://127.0.0.1:7007/#custom_scalars" in right.stdout
    assert "--logdir logs/sweeps/rates --host 127.0.0.1 --port 7007" in right.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["name=nowhere"], "no sweep of this name"),
        ([], "give name=NAME"),
        (["name=x", "top=3"], "there is no setting top"),
    ],
)
def test_a_leaderboard_of_nothing_is_told(command, arguments, words):
    refused = command("scripts/leaderboard.py", *arguments)
    assert refused.returncode == 2
    assert words in refused.stderr
