"""Asking a finished run's model: in plain transformers, in chats, in folders, and for what it didn't learn."""

import json
from pathlib import Path

import pytest
import torch
from everyday import (
    COLOURS,
    SETTINGS,
    SHORT,
    is_refused,
    notes,
    question,
    review,
    works,
    write,
    write_csv,
    write_jsonl,
    write_labels,
)
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

EMBEDDED = Path(__file__).parents[2] / "src" / "domaintune" / "assets" / "gpt2_tiny"
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def test_the_export_writes_in_batches(shell):
    write(shell.home / "notes.txt", notes())
    works(shell, f"python train.py data.path=notes.txt name=one {SHORT}")
    export = str(shell.home / "logs" / "runs" / "one" / "export")
    prompts = ["The keeper of the harbour", "In early spring the old baker of the market opened the shutters and"]
    writer = pipeline("text-generation", export, dtype=torch.float32, device="cpu")
    settings = {"max_new_tokens": 12, "do_sample": False, "return_full_text": False}
    alone = [writer(prompt, **settings) for prompt in prompts]
    assert writer(prompts, batch_size=2, **settings) == alone
    padded = AutoTokenizer.from_pretrained(export)(prompts, padding=True)
    assert len({len(ids) for ids in padded["input_ids"]}) == 1


def labels_run(shell, small_model) -> None:
    write_labels(shell.home / "reviews.csv")
    works(
        shell,
        f"python train.py model.checkpoint={small_model} data=sentiment data.path=reviews.csv name=labels {SHORT}",
    )


def test_predictions_lie_beside_their_inputs(shell, small_model):
    labels_run(shell, small_model)
    for part in range(2):
        rows = [(review(1000 + 10 * part + each),) for each in range(10)]
        write_csv(shell.home / "inbox" / f"part{part}.csv", "text", rows)
    line = "python scripts/predict.py run=labels input=inbox output=inbox/labels.jsonl"
    works(shell, line)
    first = (shell.home / "inbox" / "labels.jsonl").read_bytes()
    assert len(first.splitlines()) == 20
    works(shell, line)
    assert (shell.home / "inbox" / "labels.jsonl").read_bytes() == first


@pytest.mark.parametrize("fresh", ["", "fresh=true"])
@pytest.mark.parametrize("name", ["part.csv", "part.jsonl"])
def test_predictions_are_to_replace_their_input(shell, finished_labels, name, fresh):
    file = shell.home / name
    if name.endswith(".csv"):
        write_csv(file, "text", [(review(each),) for each in range(10)])
    else:
        write_jsonl(file, [{"text": review(each)} for each in range(10)])
    before = file.read_bytes()
    told = is_refused(shell, f"python scripts/predict.py run={finished_labels} input={name} output={name} {fresh}")
    assert name in told
    assert "fresh=true" not in told  # which would lose the person's data
    assert file.read_bytes() == before


@pytest.fixture(scope="module")
def finished_labels(command, small_model, tmp_path_factory) -> Path:
    """The folder of a run that learnt labels."""
    file = write_labels(tmp_path_factory.mktemp("labels") / "reviews.csv")
    arguments = [each.strip("'") for each in SHORT.split()]
    done = command(
        "train.py",
        f"model.checkpoint={small_model}",
        "data=sentiment",
        f"data.path={file}",
        "name=asked_labels",
        *arguments,
    )
    assert done.returncode == 0, done.stderr
    return command.home / "logs" / "runs" / "asked_labels"


def test_a_classifier_is_asked_to_write(shell, finished_labels):
    told = is_refused(shell, f'python scripts/generate.py run={finished_labels} prompt="The baker" max_new_tokens=8')
    assert "scripts/predict.py" in told


def test_a_classifier_is_measured_as_a_language_model(shell, finished_labels):
    write(shell.home / "notes.txt", notes())
    told = is_refused(
        shell,
        f"python scripts/evaluate.py model.checkpoint={finished_labels}/export data.path=notes.txt data.block_size=64 "
        "trainer.accelerator=cpu",
    )
    assert "scripts/predict.py" in told


def chatml(folder: Path) -> Path:
    """The embedded model with ChatML's tokens and template: another token ends a turn than ends a text."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHATML
    model = AutoModelForCausalLM.from_pretrained(EMBEDDED, dtype=torch.float32)
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_turn_ends_with_another_token_than_a_text(shell, tmp_path):
    model = chatml(tmp_path / "chatml")
    turns = {
        thing: [{"role": "user", "content": f"Colour of {thing}?"}, {"role": "assistant", "content": colour}]
        for thing, colour in COLOURS.items()
    }
    chats = [turns[first] + turns[second] for first in turns for second in turns if first != second]
    write_jsonl(shell.home / "chats.jsonl", [{"messages": chat} for chat in chats])
    works(
        shell,
        f"python train.py model.checkpoint={model} data=instructions data.path=chats.jsonl optim.lr=2e-3 "
        f"scheduler=constant trainer.max_steps=80 trainer.val_check_interval=40 name=one {SETTINGS}",
    )
    asked = 'python scripts/generate.py run=one chat=true prompt="Colour of coal?" temperature=0 max_new_tokens=40'
    assert works(shell, asked).split() == ["Colour", "of", "coal?", "Black."]
    export = shell.home / "logs" / "runs" / "one" / "export"
    ends = json.loads((export / "generation_config.json").read_text())["eos_token_id"]
    assert set(ends if isinstance(ends, list) else [ends]) >= {
        0,
        AutoTokenizer.from_pretrained(export).convert_tokens_to_ids("<|im_end|>"),
    }


def test_a_model_of_chats_is_asked_by_rows_like_those_that_it_learnt(shell, small_model):
    write_jsonl(shell.home / "chats.jsonl", [{"messages": question(each)} for each in range(60)])
    works(
        shell,
        f"python train.py data=instructions data.path=chats.jsonl model.checkpoint={small_model} name=asked_by_rows "
        f"{SHORT}",
    )
    write_jsonl(shell.home / "again.jsonl", [{"messages": question(each)} for each in range(3)])
    write_jsonl(shell.home / "plain.jsonl", [{"prompt": question(each)[0]["content"]} for each in range(3)])
    write_jsonl(
        shell.home / "others.jsonl",
        [
            {"instruction": question(0)[0]["content"], "output": ""},
            {"messages": question(1)[:1], "system": "Be short."},
        ],
    )
    line = "python scripts/predict.py run=asked_by_rows max_new_tokens=8"
    works(shell, f"{line} input=again.jsonl output=by_rows.jsonl")
    works(shell, f"{line} input=plain.jsonl output=by_text.jsonl chat=true")
    works(shell, f"{line} input=others.jsonl output=others_out.jsonl")
    by_rows, by_text, others = (
        [json.loads(row) for row in (shell.home / name).read_text().splitlines()]
        for name in ("by_rows.jsonl", "by_text.jsonl", "others_out.jsonl")
    )
    assert [row["text"] for row in by_rows] == [row["text"] for row in by_text]
    assert others[0]["text"] == by_rows[0]["text"]
    assert "text" in others[1]


def test_runs_are_found_where_train_was_told_to_put_them(shell, small_model):
    write(shell.home / "notes.txt", notes())
    line = f"python train.py data.path=notes.txt model.checkpoint={small_model} paths.logs=~/elsewhere name=far"
    works(shell, f"{line} {SHORT}")
    works(shell, "python scripts/evaluate.py run=far paths.logs=~/elsewhere")
    works(shell, "python scripts/generate.py run=far paths.logs=~/elsewhere prompt=Entry max_new_tokens=2")
    assert "no run of this name" in is_refused(shell, "python scripts/evaluate.py run=far")
    assert "input=nowhere.txt: no such file" in is_refused(
        shell, "python scripts/predict.py run=far paths.logs=~/elsewhere input=nowhere.txt output=o.jsonl"
    )


def test_prompts_come_from_a_table(shell):
    write_jsonl(shell.home / "prompts.jsonl", [{"prompt": "The keeper"}, {"prompt": "The baker"}, {"prompt": 5}])
    write_csv(shell.home / "prompts.csv", "number,text", [(1, "The keeper, again"), (2, "The baker")])
    line = "python scripts/generate.py model.checkpoint=embedded:gpt2_tiny max_new_tokens=4 temperature=0"
    printed = works(shell, f"{line} prompts=prompts.jsonl")
    assert [part.split("\n")[0][:10] for part in printed.split("\n---\n")[-2:]][1].startswith("The baker")
    assert "left out, wrong type" in printed
    assert "The keeper, again" in works(shell, f"{line} prompts=prompts.csv data.text_column=text")


def test_what_the_shell_did_not_fill_in_is_told(shell):
    assert "${oc.env:NAME}" in is_refused(shell, "python train.py 'paths.logs=${NOWHERE}/l'")
