import json

import pytest

from domaintune.errors import UsageError
from domaintune.sweeps.recording import SweepFolder


def test_a_sweep_records_its_trials_and_its_end(tmp_path):
    sweep = SweepFolder(tmp_path / "s")
    with sweep.recording():
        sweep.ask("seed=0", ["seed=0"]).state = "running"
        sweep.save()
        assert json.loads(sweep.file.read_text())["status"] == "running"
        sweep.trials["seed=0"].state = "finished"
    record = json.loads(sweep.file.read_text())
    assert record["status"] == "finished"
    assert record["ended"]
    assert record["trials"]["seed=0"] == {
        "number": 0,
        "overrides": ["seed=0"],
        "state": "finished",
        "exit": None,
        "why": None,
        "value": None,
        "seconds": 0.0,
    }


def test_a_failed_trial_of_this_command_is_exit_status_1_and_one_of_an_earlier_is_not(tmp_path):
    first = SweepFolder(tmp_path / "s")
    with pytest.raises(SystemExit) as stopped, first.recording():
        first.ask("a", []).state = "failed"
    assert stopped.value.code == 1
    assert json.loads(first.file.read_text())["status"] == "failed"
    second = SweepFolder(tmp_path / "s")
    with second.recording():
        second.ask("b", []).state = "finished"
    assert [(trial.number, trial.state) for trial in second.trials.values()] == [(0, "failed"), (1, "finished")]


def test_what_was_running_when_the_sweep_was_killed_is_interrupted(tmp_path):
    killed = SweepFolder(tmp_path / "s")
    killed.folder.mkdir()
    killed.ask("a", []).state = "running"
    killed.save()
    again = SweepFolder(tmp_path / "s")
    with again.recording():
        assert again.trials["a"].state == "interrupted"


def test_one_sweep_at_a_time_in_a_folder(tmp_path):
    holder = SweepFolder(tmp_path / "s")
    with holder.recording():
        (tmp_path / "s" / ".lock").write_text(json.dumps({"host": "elsewhere", "pid": 1, "job": None}))
        with (
            pytest.raises(UsageError, match="in use by process 1 on elsewhere"),
            SweepFolder(tmp_path / "s").recording(),
        ):
            pass


def test_a_sweep_that_never_began_leaves_no_folder(tmp_path):
    with pytest.raises(UsageError), SweepFolder(tmp_path / "s").recording():
        raise UsageError("wrong")
    assert not (tmp_path / "s").exists()


def test_a_folder_that_holds_a_persons_files_stays(tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "notes.txt").touch()
    with pytest.raises(UsageError), SweepFolder(tmp_path / "s").recording():
        raise UsageError("wrong")
    assert [file.name for file in (tmp_path / "s").iterdir()] == ["notes.txt"]


def test_a_trial_is_known_by_its_config_where_its_name_is_new(tmp_path):
    for folder, config in {"optim.lr=1": "{optim: {lr: 1}, seed: 0}", "other": "{optim: {lr: 2}, seed: 0}"}.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.yaml").write_text(config)
    sweep = SweepFolder(tmp_path)
    same = {"optim": {"lr": 1}, "seed": 0, "run": {"max_skipped": 3}}
    assert sweep.same_trial("optim.lr=1,seed=0", same, set()) == "optim.lr=1"
    assert sweep.same_trial("optim.lr=1,seed=0", same, {"optim.lr=1"}) == "optim.lr=1,seed=0", "it is another's"
    assert sweep.same_trial("optim.lr=1,seed=1", {**same, "seed": 1}, set()) == "optim.lr=1,seed=1"
    assert sweep.same_trial("other", same, set()) == "other"


MODEL = {"checkpoint": "embedded:gpt2_tiny", "measured_lr": {"embedded:gpt2_tiny": 2e-3}}


def test_a_trial_is_known_by_the_hashes_of_what_was_moved(tmp_path):
    old = {"data": {"path": "/here/a.txt"}, "model": MODEL, "optim": {"lr": 2e-3}, "seed": 0}
    kept = {"data": {"sha256": "d"}, "weights": {"sha256": "w"}}
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "config.yaml").write_text(json.dumps(old))
    (tmp_path / "first" / "result.json").write_text(json.dumps(kept))
    sweep, hashes = SweepFolder(tmp_path), {"data": "d", "weights": "w"}
    moved = {**old, "data": {"path": "/there/a.txt"}}
    assert sweep.same_trial("new", moved, set(), hashes) == "first"
    assert sweep.same_trial("new", moved, {"first"}, hashes) == "new", "it is another's"
    assert sweep.same_trial("new", moved, set(), {**hashes, "data": "other"}) == "new"
    copied = {**moved, "model": {**MODEL, "checkpoint": "/copy"}, "optim": {"lr": 5e-5}}
    assert sweep.same_trial("new", copied, set(), hashes) == "first", "its rate is the default, too"
    assert sweep.same_trial("new", {**copied, "optim": {"lr": 1e-4}}, set(), hashes) == "new"
    assert sweep.same_trial("new", {**moved, "seed": 1}, set(), hashes) == "new"
