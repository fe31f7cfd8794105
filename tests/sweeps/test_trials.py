import json
import signal

import pytest

from domaintune.sweeps.trials import LONGEST_NAME, last_error, outcome, trial_name, varied_overrides


def name(overrides, typed):
    return trial_name(varied_overrides(overrides, typed))


def test_a_trial_is_named_by_what_varies_whatever_the_order():
    typed = ["name=x", "optim.lr=1e-5,5e-5", "model=gpt2,distilgpt2", "optim.weight_decay=1e-2", "+a.b=1"]
    overrides = ["name=x", "optim.lr=5e-05", "model=gpt2", "optim.weight_decay=0.01", "+a.b=1"]
    assert name(overrides, typed) == "model=gpt2,optim.lr=5e-05"
    assert name(reversed(overrides), list(reversed(typed))) == "model=gpt2,optim.lr=5e-05"


def test_a_wider_grid_keeps_the_names():
    assert name(["optim.lr=1e-05"], ["optim.lr=1e-5,5e-5"]) == name(["optim.lr=1e-05"], ["optim.lr=1e-5,5e-5,1e-4"])


def test_what_a_sampler_adds_varies_too():
    assert name(["seed=3", "optim.lr=0.2"], ["seed=3"]) == "optim.lr=0.2"


def test_a_value_with_a_slash_stays_one_folder_of_its_own():
    typed = ["model.checkpoint=a/b,a_b"]
    first, second = (name([f"model.checkpoint={value}"], typed) for value in ("a/b", "a_b"))
    assert first.startswith("model.checkpoint=a_b-")
    assert second == "model.checkpoint=a_b"


@pytest.mark.parametrize("letter", ["x", "é", "字"])
def test_long_names_are_cut_and_stay_distinct(letter):
    names = {name([f"data.path='{letter * 200}{end}'"], ["data.path=a,b"]) for end in "ab"}
    assert len(names) == 2
    assert all(len(each.encode()) <= LONGEST_NAME for each in names)


def test_of_a_key_that_is_typed_twice_the_last_counts():
    assert name(["seed=1"], ["seed=0", "seed=1,2"]) == "seed=1"
    assert name(["seed=0"], ["seed=1,2", "seed=0"]) == "single"


def test_a_sweep_of_one_has_a_name():
    assert name(["seed=1"], ["seed=1"]) == "single"


def record(folder, **result):
    folder.mkdir(exist_ok=True)
    (folder / "result.json").write_text(json.dumps(result))


@pytest.mark.parametrize(
    ("result", "exit_status", "output", "expected"),
    [
        ({"status": "finished", "metrics": {"after": {"val/loss": 2.5}}}, 0, "", ("finished", None, 2.5)),
        (
            {"status": "finished", "metrics": {"after": {"val/loss": float("nan")}}},
            0,
            "",
            ("failed", "val/loss is nan", None),
        ),
        ({"status": "running"}, -signal.SIGSEGV, "epoch\nFatal Python error", ("failed", "SIGSEGV", None)),
        (
            {"status": "running"},
            -signal.SIGKILL,
            "",
            ("failed", "killed (SIGKILL): the system does that when memory runs out", None),
        ),
        (
            {"status": "failed", "error": "RunError: step 3: bad"},
            1,
            "error: step 3: bad",
            ("failed", "step 3: bad", None),
        ),
        ({"status": "failed", "error": "MemoryError: "}, 1, "", ("failed", "out of memory: MemoryError:", None)),
        ({"status": "finished"}, 2, "error: there is no setting x", ("failed", "there is no setting x", None)),
        ({"status": "interrupted"}, 143, "", ("interrupted", "stopped by SIGTERM", None)),
        ({"status": "running"}, 1, "", ("failed", "exit status 1", None)),
    ],
)
def test_what_became_of_a_trial(tmp_path, result, exit_status, output, expected):
    record(tmp_path / "trial", **result)
    assert outcome(tmp_path / "trial", "val/loss", exit_status, output, {}) == expected


def test_a_trial_that_dies_after_its_end_has_finished(tmp_path):
    result = {"status": "finished", "metrics": {"after": {"val/loss": 2.5}}}
    record(tmp_path / "trial", **result)
    died = ("finished", f"exit status {-signal.SIGSEGV} after its end", 2.5)
    assert outcome(tmp_path / "trial", "val/loss", -signal.SIGSEGV, "", {}) == died
    of_an_earlier = outcome(tmp_path / "trial", "val/loss", -signal.SIGSEGV, "", result)
    assert of_an_earlier == ("failed", "SIGSEGV", None), "it was to be trained longer, and died before that began"


def test_the_last_error_of_an_output_is_found_before_what_was_printed_after_it():
    output = "loading\nTraceback (most recent call last):\n  File x\ntorch.OutOfMemoryError: CUDA out of memory\nbye\n"
    assert last_error(output) == "out of memory: torch.OutOfMemoryError: CUDA out of memory"
    assert last_error("one\ntwo\n") == "two"
    assert last_error(" \n") is None
