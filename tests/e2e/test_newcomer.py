"""What a newcomer does beside the first run: asks it before it has ended, measures it, goes on, switches parts off."""

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import families
import pytest
import yaml
from everyday import (
    SHORT,
    config_in,
    config_of,
    figure,
    is_refused,
    notes,
    result_of,
    review,
    works,
    write,
    write_csv,
    write_jsonl,
    write_labels,
)


def tried_next(printed: str) -> list[str]:
    """The commands that a run proposes at its end."""
    return [found.strip() for found in re.findall(r"^  \S+ (?:scripts/\S+|train)\.py .*$", printed, re.MULTILINE)]


@pytest.fixture
def unfinished(shell: Callable[..., Any], small_model: Path) -> str:
    """The name of a run that was interrupted after a validation."""
    write(shell.home / "notes.txt", notes())  # type: ignore[attr-defined]
    works(
        shell,
        f"python train.py data.path=notes.txt model.checkpoint={small_model} name=unfinished {SHORT}",
    )
    folder = shell.home / "logs" / "runs" / "unfinished"  # type: ignore[attr-defined]
    config = config_in(folder)
    config["model"]["measured_lr"] = {str(small_model): 0.003}
    write(folder / "config.yaml", yaml.safe_dump(config))
    shutil.move(folder / "export", folder.parent.parent / "export")
    result = json.loads((folder / "result.json").read_text())
    kept = {key: value for key, value in result.items() if key not in ("ended", "steps", "tokens_trained")}
    kept["metrics"] = {"before": result["metrics"]["before"]}
    write(folder / "result.json", json.dumps({**kept, "status": "interrupted"}))
    return "unfinished"


def test_an_unfinished_run_can_be_asked_measured_exported_and_gone_on_with(shell, unfinished, small_model):
    folder = shell.home / "logs" / "runs" / unfinished
    asks = f"python scripts/generate.py run={unfinished} prompt=Entry max_new_tokens=6 temperature=0"
    printed = works(shell, asks)
    assert "has not finished: its best weights so far are taken" in printed
    assert "loss" in works(shell, f"python scripts/evaluate.py run={unfinished}")
    assert not (folder / "export").exists()
    start = f"python train.py data.path=notes.txt model.checkpoint=run:{unfinished} name=next {SHORT}"
    assert f"python scripts/export.py run=logs/runs/{unfinished}" in is_refused(shell, start)
    assert works(shell, f"python scripts/export.py run={unfinished}").strip().endswith("logs/runs/unfinished/export")
    exported, before = (
        {file.name: file.read_bytes() for file in place.iterdir() if file.suffix == ".safetensors"}
        for place in (folder / "export", folder.parent.parent / "export")
    )
    assert exported == before, "the same weights as those that the finished run exports"
    assert works(shell, asks).strip() in printed
    works(shell, start)
    assert config_of(shell.home, "next")["optim"]["lr"] == 0.003, "the rate that was measured for its start"


def test_an_unfinished_run_can_be_asked_while_its_texts_grow(shell, unfinished):
    write(shell.home / "notes.txt", notes() + "\n\nOne more.")
    printed = works(shell, f"python scripts/generate.py run={unfinished} prompt=Entry max_new_tokens=2")
    assert printed.startswith("Entry")
    works(shell, f"python scripts/export.py run={unfinished}")


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("best.ckpt", "is damaged"),
        ("none", "has no best.ckpt yet"),
    ],
)
def test_an_unfinished_run_that_can_not_be_exported_says_why(shell, unfinished, what, told):
    best = shell.home / "logs" / "runs" / unfinished / "checkpoints" / "best.ckpt"
    match what:
        case "best.ckpt":
            best.write_bytes(best.read_bytes()[:-9])
        case "none":
            best.unlink()
    for line in (
        f"python scripts/export.py run={unfinished}",
        f"python scripts/generate.py run={unfinished} prompt=Entry max_new_tokens=2",
    ):
        assert told in is_refused(shell, line)


def test_an_unfinished_run_of_labels_with_adapters_can_be_asked(shell, small_model):
    write_labels(shell.home / "reviews.csv")
    line = f"python train.py data=sentiment data.path=reviews.csv model.checkpoint={small_model} peft=lora name=labels"
    works(shell, f"{line} {SHORT}")
    folder = shell.home / "logs" / "runs" / "labels"
    asks = "python scripts/predict.py run=labels input=reviews.csv output={}.jsonl"
    works(shell, asks.format("finished"))
    shutil.rmtree(folder / "export")
    result = json.loads((folder / "result.json").read_text())
    write(folder / "result.json", json.dumps({**result, "status": "interrupted"}))
    assert "has not finished: its best weights so far are taken" in works(shell, asks.format("unfinished"))
    rows = [(shell.home / f"{name}.jsonl").read_text() for name in ("finished", "unfinished")]
    assert rows[0] == rows[1]
    with (shell.home / "reviews.csv").open("a") as file:
        file.write("One more.,neutral\n")
    told = is_refused(shell, "python scripts/export.py run=labels")
    assert "the texts that it is trained on have changed; its labels may be others now" in told


def test_what_can_not_be_exported_is_told_before_the_first_step(shell, small_model):
    write(shell.home / "notes.txt", notes())
    odd = shell.home / "odd"
    shutil.copytree(small_model, odd)
    write(odd / "generation_config.json", json.dumps({"eos_token_id": 0, "num_return_sequences": 3}))
    line = f"python train.py data.path=notes.txt model.checkpoint=odd name=odd {SHORT}"
    assert "num_return_sequences" in is_refused(shell, line)
    assert not list((shell.home / "logs" / "runs" / "odd").rglob("*.ckpt"))


def test_what_to_try_next_of_masked_text_can_be_typed(shell):
    write(shell.home / "notes.txt", notes())
    write_labels(shell.home / "YOUR_LABELLED_TEXTS.csv")
    encoder = families.save_family("bert", shell.home / "encoder")
    printed = works(
        shell, f"python train.py data=masked data.path=notes.txt model.checkpoint={encoder} name=masked {SHORT}"
    )
    commands = tried_next(printed)
    assert commands
    assert not any("predict.py" in command or "generate.py" in command for command in commands)
    for command in commands:
        works(shell, f"{command} {SHORT}" if "data=sentiment" in command else command)


def test_another_model_is_measured_on_the_documents_of_a_run(shell, small_model):
    write(shell.home / "notes.txt", notes())
    write(shell.home / "other.txt", "\n\n".join(f"Line {number % 20}\nof two." for number in range(30)))
    line = f"python train.py data.path=notes.txt data.unit=line model.checkpoint={small_model} name=lines {SHORT}"
    works(shell, f"{line} data.dedup=none data.strict=true")
    tuned, base = (
        works(shell, f"python scripts/evaluate.py run=lines {model}")
        for model in ("", f"model.checkpoint={small_model}")
    )
    for name in ("documents", "predicted tokens"):
        assert figure(tuned, name) == figure(base, name)
    assert figure(tuned, "loss") != figure(base, "loss")
    others = [
        works(shell, f"python scripts/evaluate.py {model} data.path=other.txt")
        for model in ("run=lines", f"model.checkpoint={small_model} data.block_size=64")
    ]
    for name in ("documents", "predicted tokens"):
        assert figure(others[0], name) == figure(others[1], name)
    assert all("a paragraph" in printed and "64 tokens" in printed for printed in others)
    assert figure(others[0], "documents") == 20  # without the copies
    assert all("of the sides" in printed for printed in others)
    own = [
        works(shell, f"python scripts/evaluate.py {model} data.path=notes.txt")
        for model in ("run=lines", f"model.checkpoint={small_model} data.block_size=64")
    ]
    assert "of the side " in own[0]
    assert "test" in own[0]
    assert "of the sides" in own[1]


def test_a_trial_is_named_by_its_sweep(shell, small_model):
    write(shell.home / "notes.txt", notes())
    line = f"python train.py -m name=rates data.path=notes.txt model.checkpoint={small_model}"
    works(shell, f"{line} optim.lr=1e-3,1e-2 launcher.n_jobs=2 {SHORT}")
    works(shell, "python scripts/generate.py run=rates/optim.lr=0.01 prompt=Entry max_new_tokens=2")
    told = is_refused(shell, "python scripts/generate.py run=rates prompt=Entry")
    assert "its trials are rates/optim.lr=0.001, rates/optim.lr=0.01" in told
    shown = works(shell, "python scripts/leaderboard.py name=rates")
    assert "gap to best" in shown
    measure, start = re.search(r"the best trial: (python .*) measures it, (python .*) starts from it", shown).groups()
    works(shell, measure)
    assert "data.path=notes.txt" in start
    works(shell, f"{start} name=further {SHORT}")
    assert config_of(shell.home, "further")["model"]["checkpoint"].endswith("/export")


def test_null_switches_parts_off(shell, small_model):
    write(shell.home / "notes.txt", notes())
    line = f"python train.py data.path=notes.txt model.checkpoint={small_model}"
    settings = SHORT.replace("'~callbacks.samples'", "callbacks.samples=null")
    works(shell, f"{line} name=one {settings} logger=null scheduler=null peft=null")
    assert not list((shell.home / "logs" / "runs" / "one").glob("events*"))
    assert config_of(shell.home, "one")["scheduler"]["name"] == "constant"
    without = SHORT.replace("'~callbacks.samples'", "")
    works(shell, f"{line} name=two {without} callbacks=null")


def test_steps_that_are_set_alone_end_a_run_of_many_epochs(shell, small_model):
    write(shell.home / "notes.txt", notes(30))
    line = f"python train.py data.path=notes.txt model.checkpoint={small_model} trainer=cpu data.block_size=64"
    works(shell, f"{line} name=one trainer.max_steps=9 trainer.limit_train_batches=2 callbacks=null")
    assert result_of(shell.home, "one")["steps"] == 9


def test_what_to_try_next_can_be_pasted(shell, small_model):
    write_jsonl(
        shell.home / "pairs.jsonl", [{"prompt": f"{each}+1=\n", "completion": f"{each + 1}"} for each in range(60)]
    )
    settings = SHORT.replace("'~callbacks.samples'", "callbacks.samples.max_new_tokens=2")
    line = f"python train.py data=instructions data.path=pairs.jsonl model.checkpoint={small_model} name=pairs"
    printed = works(shell, f"{line} optim.lr=3e-3 {settings}")
    commands = tried_next(printed)
    assert len(commands) == 3
    assert "$'prompt=" in commands[0]
    assert r"+1=\n'" in commands[0]
    works(shell, f"{commands[0]} max_new_tokens=2")
    assert "-m name=pairs_rates optim.lr=0.001,0.003,0.009 data=instructions data.path=pairs.jsonl" in commands[2]
    works(shell, f"{commands[2]} launcher.n_jobs=2")


def test_a_run_that_ends_worse_says_so(shell, small_model):
    write(shell.home / "notes.txt", notes())
    line = f"python train.py data.path=notes.txt model.checkpoint={small_model} name=worse scheduler=constant"
    printed = works(shell, f"{line} optim.lr=3 {SHORT}")
    assert "training did not help: val/loss was" in printed
    assert "optim.lr=0.3 is a tenth of it" in printed
    assert "which the frequencies of the text's tokens alone give: the model has not learnt the text" in printed


def test_a_run_keeps_what_it_printed_and_on_demand_only_what_is_used(shell, small_model):
    write(shell.home / "notes.txt", notes())
    folder = shell.home / "logs" / "runs" / "kept"
    line = f"python train.py data.path=notes.txt model.checkpoint={small_model} name=kept checkpoint.keep=best"
    printed = works(shell, f"{line} {SHORT}")
    assert (folder / "output.log").read_text().split() == printed.split()
    assert {file.name for file in (folder / "checkpoints").iterdir()} == {"best.ckpt", "best.ckpt.sha256"}
    longer = is_refused(shell, f"{line} {SHORT} trainer.max_steps=50")
    assert "can't train longer: trainer.max_steps" in longer
    assert f"model.checkpoint=run:{folder}" in longer
    works(shell, f"{line} {SHORT}")  # reported
    assert (folder / "output.log").read_text().split() == printed.split()
    works(shell, "python scripts/evaluate.py run=kept")


def test_a_line_is_kept_as_a_terminal_shows_it(shell, small_model):
    write(shell.home / "notes.txt", notes())
    line = f"python train.py data.path=notes.txt model.checkpoint={small_model} name=bar {SHORT}"
    works(shell, f'script --quiet --return --command "{line}" /dev/null')
    kept = (shell.home / "logs" / "runs" / "bar" / "output.log").read_text()
    assert re.search(r"━ \d+/\d+ steps", kept)
    assert "\x1b" not in kept
    assert "saved in" in kept


def test_a_tokenizer_of_ones_own_for_a_script_that_the_model_does_not_know(shell):
    places, verbs = "山水雲月花鳥江海城橋樓門", "望聽尋過登臨憶送別夢"
    poems = [f"{places[each % 12]}{verbs[each % 10]}{places[each * 5 % 12]}，{each}年春。" for each in range(400)]
    write(shell.home / "poems.txt", "\n\n".join(poems))
    unknown = works(shell, f"python train.py data.path=poems.txt name=bytes {SHORT}")
    assert "does not know this text's script" in unknown
    assert "scripts/make_tokenizer.py" in unknown
    made = works(shell, "python scripts/make_tokenizer.py data.path=poems.txt out=~/start vocabulary=600")
    assert re.search(r"^\d+ tokens, 0\.\d+ a character of the validation side$", made, re.MULTILINE)
    line = f"python train.py data.path=poems.txt model.checkpoint=start model.init=random name=own {SHORT}"
    known = works(shell, line)
    assert "does not know this text's script" not in known
    works(shell, "python scripts/generate.py run=own prompt=山 max_new_tokens=4")
    again = "python scripts/make_tokenizer.py data.path=poems.txt"
    assert "is there already" in is_refused(shell, f"{again} out=start")
    assert "vocabulary=200" in is_refused(shell, f"{again} out=other vocabulary=200")


def test_what_is_not_needed_is_removed_where_one_says_yes(shell, small_model):
    write(shell.home / "notes.txt", notes())
    line = f"python train.py data.path=notes.txt model.checkpoint={small_model} name=big {SHORT}"
    works(shell, line)
    works(shell, f"{line} fresh=true")
    runs = shell.home / "logs" / "runs"
    for answer in ("echo n", "true"):
        listed = works(shell, f"{answer} | python scripts/prune.py")
        assert "logs/runs/big  (checkpoints to train a finished run longer)" in listed
        assert "(moved aside by fresh=true)" in listed
        assert len(list(runs.iterdir())) == 2
    assert "removed" in works(shell, "echo y | python scripts/prune.py")
    assert [folder.name for folder in runs.iterdir()] == ["big"]
    assert "nothing to remove" in works(shell, "python scripts/prune.py yes=true")
    works(shell, "python scripts/generate.py run=big prompt=Entry max_new_tokens=2")
    assert "scripts/prune.py removed" in is_refused(shell, f"{line} trainer.max_steps=50")


def test_predictions_keep_the_columns_of_their_rows_and_are_a_table_where_it_is_called_so(shell, small_model):
    write_labels(shell.home / "reviews.csv")
    works(
        shell,
        f"python train.py data=sentiment data.path=reviews.csv model.checkpoint={small_model} name=labels {SHORT}",
    )
    rows = [(f"r{number}", review(number), "good") for number in range(5)]
    write_csv(shell.home / "new.csv", "id,text,label", rows)
    works(shell, "python scripts/predict.py run=labels input=new.csv output=out.csv")
    works(shell, "python scripts/predict.py run=labels input=new.csv output=out.jsonl")
    with (shell.home / "out.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    lines = [json.loads(line) for line in (shell.home / "out.jsonl").read_text().splitlines()]
    assert [(row["id"], row["text"]) for row in table] == [row[:2] for row in rows]
    assert [row["label"] for row in table] == [row["label"] for row in lines]
    assert [row["input.label"] for row in table] == ["good"] * 5, "the label that a row had"
    assert {"row", "id", "text", "label", "probabilities"} <= set(lines[0])


def test_a_sweep_over_a_path_with_a_space_runs(shell, small_model):
    write(shell.home / "my notes" / "a 1.txt", notes())
    line = f"python train.py -m name=spaces 'data.path={shell.home}/my notes' data.unit=paragraph"
    works(shell, f"{line} model.checkpoint={small_model} optim.lr=1e-3,2e-3 {SHORT}")


def test_without_a_test_side_the_validation_side_is_measured(shell, small_model):
    write(shell.home / "notes.txt", notes())
    line = f"python train.py data.path=notes.txt model.checkpoint={small_model} name=untested data.test_fraction=0"
    works(shell, f"{line} {SHORT}")
    measured = works(shell, "python scripts/evaluate.py run=untested")
    assert "the validation side is measured" in measured
    after = result_of(shell.home, "untested")["metrics"]["after"]["val/loss"]
    assert figure(measured, "loss") == pytest.approx(after, rel=1e-4)
    assert "no document on this side" in is_refused(shell, "python scripts/evaluate.py run=untested split=test")


def test_unknown_choices_and_settings_are_told_at_once(shell):
    refused = is_refused(shell, "python train.py model=gpt-2 data.blocksize=128 learning_rate=1e-3")
    for words in ("model=gpt-2: there is no such choice; did you mean gpt2?", "data.block_size?", "optim.lr?"):
        assert words in refused
    assert "provider" not in refused
    refused = is_refused(shell, "python train.py trainer.max_step=20 optim.learning_rate=1e-3 fast_dev_run=true")
    for words in ("trainer.max_steps?", "optim.lr?", "trainer=debug?"):
        assert words in refused
    (shell.home / "mine").mkdir()
    assert "did you mean data.path=mine?" in is_refused(shell, "python train.py data=mine")
    assert "sweep=optuna_tpe" in is_refused(shell, "python train.py -m hydra/sweeper=optuna optim.lr=1e-3,2e-3")
    assert "in quotes" in is_refused(shell, "python train.py data.path=my notes")


def test_help_that_is_cut_off_is_no_error(shell):
    cut = shell("python train.py --help | head -1")
    assert (cut.returncode, cut.stderr) == (0, "")


def test_a_refused_run_leaves_no_folder(shell):
    is_refused(shell, "python train.py 'name=a b/1' trainer.max_steps=-7")
    assert not (shell.home / "logs" / "runs" / "a b").exists()
    mine = shell.home / "runs" / "mine"
    mine.mkdir(parents=True)
    done = shell(
        f"cd '{mine}' && python {Path(__file__).parents[2]}/train.py trainer.max_steps=-7; pwd -P && ls -d '{mine}'"
    )
    assert done.returncode == 0, done.stderr


def test_advice_on_a_text_that_is_too_small_is_not_what_was_done(shell, small_model):
    write(shell.home / "lines.txt", "".join(f"Line {number} of some.\n" for number in range(200)))
    for unit in ("", "data.unit=paragraph"):
        refused = is_refused(shell, f"python train.py data.path=lines.txt {unit}")
        assert "Or cut it finer (data.unit=line)" in refused
    works(
        shell,
        f"python train.py data.path=lines.txt data.unit=line model.checkpoint={small_model} name=lines_of_one {SHORT}",
    )


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        {"instruction": "a", "input": "", "output": "b"},
        {"id": 1, "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
    ],
)
def test_instructions_given_as_text_are_told_from_it(shell, row):
    write_jsonl(shell.home / "rows.jsonl", [row] * 3)
    refused = is_refused(shell, "python train.py data.path=rows.jsonl")
    assert "data=instructions learns to answer from such rows" in refused


def test_of_mixed_encodings_each_message_says_what_to_do(shell):
    write(shell.home / "mixed" / "a.txt", "第一篇文章，說的是港口。\n".encode("big5") * 9)
    write(shell.home / "mixed" / "b.txt", "第二篇文章，說的是果園。\n" * 9)
    for setting in ("", "data.encoding=big5"):
        assert "iconv" in is_refused(shell, f"python train.py data.path=mixed {setting}")
