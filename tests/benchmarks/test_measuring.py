"""What the comparison of speed counts, and what it makes of it."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[2] / "scripts"))

import benchmark
from benchmarks import data, training


def run(*rates: float, **more: float) -> dict[str, Any]:
    return {"rates": list(rates), "tokens_per_second": sorted(rates)[len(rates) // 2], "peak_memory_gb": 1.0, **more}


def test_a_summary_takes_all_stretches_of_all_processes() -> None:
    ours = [run(10, 20, 30, flops_per_token=2.0, peak_flops=100.0), run(40, 40, 40)]
    theirs = [run(10, 10, 10), {**run(5, 10, 20), "peak_memory_gb": 3.0}]
    rows = benchmark.summary({"bare": theirs, "domaintune": ours}, "domaintune", [])
    assert rows["bare"] == {
        "tokens_per_second": 10,
        "min": 5,
        "max": 20,
        "peak_memory_gb": 3.0,
        "ours_to_it": 2.5,  # of 1, 2, 3, 8, 4 and 2
        "of_product_rate": None,
        "mfu": 0.2,
    }
    assert rows["domaintune"]["tokens_per_second"] == 35
    assert rows["domaintune"]["mfu"] == pytest.approx(0.7)
    assert rows["domaintune"]["ours_to_it"] == 1


def test_on_a_processor_each_round_has_its_own_rate_of_products(capsys: pytest.CaptureFixture[str]) -> None:
    ours = [run(10, flops_per_token=2.0), run(10), run(30)]
    products = [{"bf16": 100.0, "fp32": 50.0}, {"bf16": 10.0, "fp32": 40.0}, {"bf16": 100.0, "fp32": 100.0}]
    rows = benchmark.summary({"domaintune_compiled": ours}, "domaintune_compiled", products)
    assert rows["domaintune_compiled"]["of_product_rate"] == 0.5  # of 0.2, 0.5 and 0.6
    benchmark.show(rows, "tiny", "domaintune_compiled")
    shown = capsys.readouterr().out
    assert "50.0%" in shown
    assert "MFU" not in shown


def test_without_a_data_sheet_there_is_no_mfu(capsys: pytest.CaptureFixture[str]) -> None:
    rows = benchmark.summary({"domaintune": [run(10, flops_per_token=2.0)]}, "domaintune", [])
    assert rows["domaintune"]["mfu"] is None
    benchmark.show(rows, "tiny", "domaintune")
    assert "MFU" not in capsys.readouterr().out


@pytest.mark.parametrize(("compiled", "ours"), [(True, "domaintune_compiled"), (False, "domaintune")])
def test_ours_is_compiled_where_the_others_are(compiled: bool, ours: str) -> None:
    given = argparse.Namespace(what="train", compile=compiled, only=["nanogpt"])
    assert benchmark.methods(given) == ["nanogpt", ours]


def test_a_method_that_fails_says_why() -> None:
    why = benchmark.measure("train", "no_such_method", [])
    assert isinstance(why, str)
    assert why.startswith("failed with status 1; left out\n")
    assert "KeyError" in why


@pytest.mark.parametrize(
    ("why", "code"), [("failed with status 1; left out\nKeyError", 1), (benchmark.TOO_LARGE, None)]
)
def test_a_failure_is_shown_and_ends_with_1_unless_memory_ran_out(
    why: str, code: int | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmark, "measure", lambda _what, name, _told: why if name == "classic" else run(10))
    monkeypatch.setattr(data, "make_corpus", lambda *_: None)
    given = argparse.Namespace(
        what="data",
        only=None,
        megabytes=1.0,
        rounds=2,
        device="cpu",
        compile=False,
        json=str(tmp_path / "found.json"),
        png=None,
    )
    try:
        benchmark.compare(given)
        ended = None
    except SystemExit as stopped:
        ended = stopped.code
    assert ended == code
    shown = capsys.readouterr().out
    assert shown.count(f"classic {why}") == 1
    assert list(json.loads((tmp_path / "found.json").read_text())["summary"]) == ["processes", "domaintune"]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> training.Clock:
    """One of two stretches of 10 seconds, whose every look at the time takes half a second."""
    times = (0.5 * number for number in range(1000))
    monkeypatch.setattr(training, "time", SimpleNamespace(perf_counter=lambda: next(times)))
    return training.Clock(argparse.Namespace(device="cpu", seconds=10.0, repeats=2))


def test_a_clock_counts_stretches_after_the_warm_up(clock: training.Clock) -> None:
    assert not any(clock.step(1000) for _ in range(training.WARM_UP_STEPS["cpu"]))
    # From the fourth step on a step looks at the time, so that a stretch of 23 steps takes 20 looks and the last one.
    assert not any(clock.step(1) for _ in range(23))
    assert clock.rates == [pytest.approx(23 / 10.5)]
    assert [clock.step(2) for _ in range(23)] == [False] * 22 + [True]
    assert clock.rates[1] == pytest.approx(46 / 10.5)
    found = clock.result()
    assert found["rates"] == clock.rates
    assert found["tokens_per_second"] == pytest.approx(34.5 / 10.5)


def test_documents_of_one_length(tmp_path: Path) -> None:
    data.make_corpus(tmp_path / "corpus.jsonl", 0.02, 512)
    texts = [json.loads(line)["text"] for line in (tmp_path / "corpus.jsonl").read_text().splitlines()]
    assert len(texts) > 5
    assert {len(text) for text in texts} == {int(512 * data.CHARACTERS)}


@pytest.mark.slow
def test_the_benchmark_measures_full_windows(tmp_path: Path) -> None:
    file = tmp_path / "speed.json"
    command = f"train --seconds 0.5 --block-size 64 --batch-size 2 --documents full --rounds 1 --json {file}".split()
    done = subprocess.run(
        [sys.executable, benchmark.__file__, *command, "--only", "nanogpt", "domaintune"],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())
    assert list(found["summary"]) == list(found["measured"]) == ["nanogpt", "domaintune"]
    assert all(len(of_method) == 1 and len(of_method[0]["rates"]) == 1 for of_method in found["measured"].values())
    assert found["measured"]["domaintune"][0]["flops_per_token"] > 0
    assert "--documents full" in found["command"]
    assert found["versions"]["torch"]
    assert found["measured"]["nanogpt"][0]["device"]
