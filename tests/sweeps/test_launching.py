import json
import logging
import signal
import sys
from pathlib import Path

import in_process
import pytest

from domaintune.errors import UsageError
from domaintune.sweeps import launching, recording, slurm_launcher
from domaintune.sweeps.preflight import Preflight
from domaintune.sweeps.process_launcher import ProcessLauncher

FOLDER = Path("logs/sweeps/s")
GRID = "optim.lr=1e-2,1e-3"


def rate(start: launching.Start) -> float:
    assert start.config.optim.lr
    return start.config.optim.lr


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The arguments of a sweep whose trials finish at once, with their learning rate as their loss."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ProcessLauncher, "run", in_process.ending(rate))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"n_positions": 64}')
    (tmp_path / "model" / "tokenizer.json").write_text("{}")
    (tmp_path / "text.txt").write_text("\n\n".join(f"paragraph {number}" for number in range(50)))
    own = ("data.path=text.txt", "data.unit=paragraph", "data.block_size=64", f"paths.cache={tmp_path}/cache")
    return ["name=s", "model.checkpoint=model", "model.init=random", *own]


def record() -> dict:
    return json.loads((FOLDER / "sweep.json").read_text())


def states() -> dict[str, str]:
    return {name: trial["state"] for name, trial in record()["trials"].items()}


def aside() -> list[Path]:
    return list(FOLDER.parent.glob("s.before-*"))


def test_a_sweep_that_was_queued_again_moves_nothing_aside(typed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    in_process.sweep(*typed, GRID, "fresh=true")
    first = record()["trials"]
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    in_process.sweep(*typed, GRID, "fresh=true")
    assert not aside()
    assert record()["trials"].keys() == first.keys()


def test_a_search_asks_once_whether_it_can_start(typed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has started itself may still be listed somewhere when the next batch begins."""
    asked = []
    monkeypatch.setattr(ProcessLauncher, "ready", lambda self: asked.append(self))
    in_process.sweep(*typed, "sweep=random", "sweep.n_trials=3", "launcher.n_jobs=1")
    assert len(states()) == 3
    assert len(asked) == 1


def test_a_fresh_search_leaves_the_earlier_one_whole(typed: list[str]) -> None:
    search = [*typed, "sweep=random", "sweep.n_trials=2"]
    in_process.sweep(*search)
    first = record()["trials"]
    in_process.sweep(*search, "seed=1", "fresh=true")
    (old,) = aside()
    assert json.loads((old / "sweep.json").read_text())["trials"] == first
    assert (old / "optuna.db").exists()
    assert (FOLDER / "optuna.db").exists()
    assert list(states().values()) == ["finished", "finished"]
    assert not first.keys() & states().keys()


def test_a_fresh_grid_moves_the_earlier_one_only_when_it_can_begin(typed: list[str]) -> None:
    in_process.sweep(*typed, GRID)
    before = {file.name for file in FOLDER.iterdir()}
    with pytest.raises(UsageError, match="block_size=65 is more than"):
        in_process.sweep(*typed, "data.block_size=32,65", "fresh=true")
    assert not aside()
    in_process.sweep(*typed, "data.block_size=16,32", "fresh=true")
    (old,) = aside()
    assert {file.name for file in old.iterdir()} == before
    assert set(states()) == {"data.block_size=16", "data.block_size=32"}


def test_a_search_with_another_config_is_refused_and_the_record_stays(typed: list[str]) -> None:
    search = [*typed, "sweep=random", "sweep.n_trials=2"]
    in_process.sweep(*search)
    before = (FOLDER / "sweep.json").read_text()
    with pytest.raises(UsageError, match=r"optim\.weight_decay: 0\.01 -> 0\.5"):
        in_process.sweep(*search, "optim.weight_decay=0.5")
    assert (FOLDER / "sweep.json").read_text() == before


def test_each_config_is_composed_and_compared_once(typed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    checks, identities = [], []
    check, identity = Preflight.check, recording._identity
    monkeypatch.setattr(Preflight, "check", lambda self, *given: checks.append(given) or check(self, *given))
    monkeypatch.setattr(recording, "_identity", lambda config: identities.append(config) or identity(config))
    in_process.sweep(*typed, "seed=0,1,2", "fresh=true")
    assert (len(checks), len(identities)) == (3, 0)
    checks.clear()
    in_process.sweep(*typed, "seed=0,1,2,3,4")
    assert (len(checks), len(identities)) == (5, 3 + 2 * 2)  # a new one with and without the hash of its tokenizer


def test_a_trial_that_is_known_under_another_name_is_checked_in_its_folder(typed: list[str]) -> None:
    in_process.sweep(*typed, "optim.lr=1e-2,1e-3")
    in_process.sweep(*typed, "optim.lr=1e-2,1e-3", "seed=0,1")
    assert set(states()) == {"optim.lr=0.01", "optim.lr=0.001", "optim.lr=0.01,seed=1", "optim.lr=0.001,seed=1"}


def test_what_finished_without_a_finite_metric_is_not_said_to_be_tried_again(
    typed: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ProcessLauncher, "run", in_process.ending(lambda _: float("nan")))
    for more in ([], ["sweep.retry_failed=true"]):
        with pytest.raises(SystemExit) as stopped:
            in_process.sweep(*typed, GRID, *more)
        assert stopped.value.code == 1
    printed = capsys.readouterr().out
    assert "2 finished before, with a metric that is not finite: another try would end alike" in printed
    assert "tries again" not in printed


@pytest.mark.parametrize("late", [True, False])
def test_a_signal_ends_a_sweep_only_before_its_trials_have_ended(
    typed: list[str], monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    def run(launcher: launching.TrialLauncher, starts: list[launching.Start]) -> None:
        in_process.ending(rate)(launcher, starts if late else starts[:1])
        launcher.ending._signals.append(signal.SIGTERM)

    monkeypatch.setattr(ProcessLauncher, "run", run)
    if late:
        in_process.sweep(*typed, GRID)
    else:
        with pytest.raises(SystemExit) as stopped:
            in_process.sweep(*typed, GRID)
        assert stopped.value.code == 143
    assert record()["status"] == ("finished" if late else "interrupted")


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_sweep_that_is_told_that_its_job_is_over_queues_it_anew(
    typed: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int
) -> None:
    monkeypatch.setattr(ProcessLauncher, "run", lambda launcher, _: launcher.ending._signals.append(number))
    (tmp_path / "scontrol").write_text(f'#!/bin/sh\necho "$@" $(grep -c interrupted {FOLDER}/sweep.json) >> asked\n')
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with pytest.raises(SystemExit) as stopped:
        in_process.sweep(*typed, GRID)
    assert stopped.value.code == 128 + number
    asked = Path("asked").read_text() if Path("asked").exists() else ""
    assert asked == ("requeue 7 1\n" if number == signal.SIGUSR1 else ""), "when all is recorded"


@pytest.mark.parametrize("why", ["queued", "submitit"])
def test_a_sweep_whose_jobs_can_t_be_started_moves_and_records_nothing(
    typed: list[str], monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    in_process.sweep(*typed, GRID)
    before = (FOLDER / "sweep.json").read_text()
    monkeypatch.setattr(slurm_launcher, "slurm", lambda *_: "12_0 RUNNING\n" if why == "queued" else "")
    monkeypatch.setitem(sys.modules, "submitit", None)
    words = "still queued or running: 12_0" if why == "queued" else "pip install -e"
    with pytest.raises(UsageError, match=words):
        in_process.sweep(*typed, GRID, "launcher=slurm", "fresh=true")
    assert not aside()
    assert (FOLDER / "sweep.json").read_text() == before


def test_what_is_no_terminal_is_wide_enough_for_names_and_hears_nothing_of_hydra(
    typed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    logging.getLogger().setLevel(logging.INFO)
    long = ",".join(f"{'x' * 90}{end}" for end in "ab")
    in_process.sweep(*typed, f"data.text_column={long}")
    assert logging.getLogger().level == logging.WARNING
    printed = capsys.readouterr().out
    rows = [line for line in printed.splitlines() if line.startswith("│ data.text_column=")]
    assert [row.split()[1] for row in rows] == [f"data.text_column={each}" for each in long.split(",")]
    assert "checking 2 configs" in printed


def test_the_direction_of_a_search_is_that_of_what_its_trials_monitor(
    typed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rows.csv").write_text("text,label\n" + "".join(f"text {n},{'ab'[n % 2]}\n" for n in range(60)))
    monkeypatch.setattr("domaintune.preparing.check_family", lambda *_: None)
    rows = [*(each for each in typed if "data." not in each), "data=sentiment", "data.path=rows.csv"]
    search = [*rows, "data.block_size=64", "sweep=random", "sweep.n_trials=1"]
    for more, wanted in (([], "maximize"), (["task.monitor=val/loss"], "minimize")):
        with in_process.sweeper(*search, *more, "fresh=true") as made:
            made.sweep([*search, *more, "fresh=true"])
            assert made.sweeper.direction == wanted
            assert made.sweeper.launcher.direction == wanted[:3]
    with pytest.raises(UsageError, match=r"by one metric, and these have val/f1, val/loss: set task\.monitor"):
        in_process.sweep(*search, "task.monitor=choice(val/loss,val/f1)", "fresh=true")


def test_trials_whose_data_was_moved_have_finished(
    typed: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    in_process.sweep(*typed, "seed=0,1")
    (tmp_path / "text.txt").rename(tmp_path / "moved.txt")
    (tmp_path / "model").rename(tmp_path / "copy")
    moved = [each.replace("text.txt", "moved.txt").replace("checkpoint=model", "checkpoint=copy") for each in typed]
    in_process.sweep(*moved, "seed=0,1,2")
    assert "2 finished already" in capsys.readouterr().out
    assert set(states()) == {"seed=0", "seed=1", "seed=2"}
