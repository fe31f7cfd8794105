import json
from pathlib import Path

import pytest
import sweeps_on_disk as made

from domaintune.errors import UsageError
from domaintune.runs.outcomes import read_sweep, shown, trial_overrides, varied_keys, varied_settings


def test_a_sweep_without_a_record_is_read_from_its_trials(tmp_path: Path) -> None:
    made.rates(tmp_path, {1e-3: 3.0, 1e-2: 2.5}, seeds=2)
    made.trial(tmp_path, {"optim.lr": 1.0}, None, error="RunError: loss is not finite\nmore")
    made.trial(tmp_path, {"optim.lr": 0.5}, None, status="running")
    (tmp_path / "optim.lr=0.1.before-2026").mkdir()
    (tmp_path / "optim.lr=0.1.before-2026" / "config.yaml").write_text("seed: 0")
    sweep = read_sweep(tmp_path)
    assert [trial.state for trial in sweep.trials].count("finished") == 4
    assert {trial.name: trial.why for trial in sweep.trials if trial.state == "failed"} == {
        "optim.lr=1.0": "RunError: loss is not finite"
    }
    assert (sweep.count("running"), len(sweep.trials), sweep.command) == (1, 6, "python train.py -m")


def test_the_record_says_more_and_knows_trials_that_have_no_folder(tmp_path: Path) -> None:
    made.trial(tmp_path, {"optim.lr": 0.1}, made.documents(3.0, seed=0))
    line = {"number": 0, "overrides": ["optim.lr=0.1"], "state": "finished", "exit": 0, "why": None, "seconds": 4.0}
    lost = {"number": 1, "overrides": ["optim.lr=9"], "state": "failed", "exit": -11, "why": "SIGSEGV", "seconds": 1.0}
    record = {"command": "typed", "started": "then", "ended": None, "status": "running"}
    (tmp_path / "sweep.json").write_text(json.dumps(record | {"trials": {"optim.lr=0.1": line, "optim.lr=9": lost}}))
    sweep = read_sweep(tmp_path)
    assert (sweep.command, sweep.started, sweep.ended) == ("typed", "then", None)
    assert [(trial.name, trial.state, trial.exit, trial.why) for trial in sweep.trials] == [
        ("optim.lr=0.1", "finished", 0, None),
        ("optim.lr=9", "failed", -11, "SIGSEGV"),
    ]
    assert varied_keys(sweep.trials) == []
    assert trial_overrides(tmp_path / "optim.lr=9") == ["optim.lr=9"]


@pytest.mark.parametrize(
    ("line", "result", "expected"),
    [
        ("running", {"status": "finished"}, ("finished", None)),
        ("interrupted", {"status": "finished"}, ("finished", None)),
        ("pending", {"status": "failed", "error": "RunError: full"}, ("failed", "RunError: full")),
        ("running", {"status": "interrupted"}, ("running", "before")),
        ("failed", {"status": "finished"}, ("failed", "before")),
    ],
)
def test_a_trial_knows_its_end_before_the_record_does(tmp_path: Path, line: str, result: dict, expected: tuple) -> None:
    made.trial(tmp_path, {"optim.lr": 0.1}, made.documents(3.0, seed=0), **result)
    record = {"trials": {"optim.lr=0.1": {"number": 0, "state": line, "why": "before"}}}
    (tmp_path / "sweep.json").write_text(json.dumps(record))
    (trial,) = read_sweep(tmp_path).trials
    assert (trial.state, trial.why) == expected


def test_what_cannot_move_the_numbers_is_a_setting_where_it_was_varied_on_purpose(tmp_path: Path) -> None:
    names = [made.trial(tmp_path, {"run.max_skipped": value}, None).name for value in (1, 2)]
    assert varied_keys(read_sweep(tmp_path).trials) == []
    lines = {name: {"overrides": [name], "state": "failed"} for name in names}
    (tmp_path / "sweep.json").write_text(json.dumps({"trials": lines}))
    assert varied_keys(read_sweep(tmp_path).trials) == ["run.max_skipped"]


def test_a_run_of_its_own_has_no_overrides(tmp_path: Path) -> None:
    assert trial_overrides(tmp_path / "runs" / "x") is None


def test_a_folder_without_trials_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no trial"):
        read_sweep(tmp_path)


def test_what_varies_is_told_by_the_configs_and_the_seed_is_not_a_setting(tmp_path: Path) -> None:
    made.rates(tmp_path, {1e-3: 3.0, 1e-2: 2.5}, **{"model.checkpoint": "a/b"})
    made.rates(tmp_path, {1e-3: 3.0}, **{"model.checkpoint": "c"})
    assert varied_keys(read_sweep(tmp_path).trials) == ["model.checkpoint", "optim.lr"]


def test_a_metric_that_is_not_finite_is_a_failure(tmp_path: Path) -> None:
    folder = made.trial(tmp_path, {"optim.lr": 9.0}, made.documents(3.0, seed=0))
    result = json.loads((folder / "result.json").read_text())
    result["metrics"]["after"]["val/loss"] = float("nan")
    (folder / "result.json").write_text(json.dumps(result))
    (trial,) = read_sweep(tmp_path).trials
    assert (trial.state, trial.why, trial.metrics) == ("failed", "val/loss is not finite", {})


def test_the_last_lines_of_what_was_printed(tmp_path: Path) -> None:
    folder = made.trial(tmp_path, {"optim.lr": 9.0}, None, error="RuntimeError: gone")
    (trial,) = read_sweep(tmp_path).trials
    assert trial.last_lines() == ["RuntimeError: gone"]
    printed = "x" * 40_000 + "\n" + "".join(f"line {number}\n" for number in range(9)) + "step 1\rstep 2\r\n\nKilled\n"
    (folder / "output.log").write_text(printed)
    assert trial.last_lines() == [*(f"line {number}" for number in range(3, 9)), "step 2", "Killed"]


def test_hyperparameters_are_the_values_of_the_config_where_an_override_names_one() -> None:
    config = {"optim": {"lr": 1e-5, "betas": [0.9, 0.95]}, "model": {"checkpoint": "gpt2"}, "seed": 1}
    overrides = ["optim.lr=1e-5", "model=gpt2", "seed=1", "optim.betas=[0.9,0.95]", "+experiment=x"]
    assert varied_settings(config, overrides) == {
        "optim.lr": 1e-5,
        "model": "gpt2",
        "seed": 1,
        "optim.betas": "[0.9,0.95]",
        "experiment": "x",
    }


def test_values_are_shown_as_they_are_typed() -> None:
    assert [shown(value) for value in (True, 1e-5, 3, None, [0.9, 1], "a")] == [
        "true", "1e-05", "3", "null", "[0.9,1]", "a",
    ]  # fmt: skip


def test_a_trial_of_an_earlier_version_differs_in_nothing_that_it_did_not_record(tmp_path: Path) -> None:
    made.rates(tmp_path, {1e-3: 3.0, 1e-2: 2.5})
    target = {"task._target_": "domaintune.tasks.causal_lm.CausalLM"}
    made.trial(tmp_path, {**target, "optim.lr": 1e-3, "seed": 9}, None)
    assert varied_keys(read_sweep(tmp_path).trials) == ["optim.lr"]
    made.trial(tmp_path, {"task._target_": "a.B", "task.name": "b", "optim.lr": 1e-3}, None)
    assert varied_keys(read_sweep(tmp_path).trials) == ["task.name", "optim.lr"]
