"""scripts/predict.py after training: what it says is what validation saw, however it is batched or interrupted."""

import json
import math
import random
from pathlib import Path
from typing import Any

import families
import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig, pipeline

from domaintune.tasks.metrics import count_entities, entity_metrics, overlap_metrics

SETTINGS = [
    *("data.block_size=24", "data.batch_size=4", "optim.lr=1e-2", "trainer=cpu", "trainer.max_steps=12"),
    *("trainer.max_epochs=-1", "trainer.val_check_interval=6", "trainer.precision=32", "logger=none"),
    *("data.target_size=10", "data.test_fraction=0"),
]
DRAW = random.Random(0)
SENTENCES = [[DRAW.choice(families.WORDS) for _ in range(DRAW.randint(3, 30))] for _ in range(80)]
NAMES = {"Ann": "B-PER", "Bob": "B-PER", "Paris": "B-LOC"}


def labelled(words: list[str]) -> dict[str, Any]:
    return {"text": " ".join(words), "label": "good" if "good" in words or "nice" in words else "bad"}


def several(words: list[str]) -> dict[str, Any]:
    return {"text": " ".join(words), "label": sorted({"film", "book"} & {*words})}


def tagged(words: list[str]) -> dict[str, Any]:
    return {"tokens": words, "tags": [NAMES.get(word, "O") for word in words]}


def paired(words: list[str]) -> dict[str, Any]:
    return {"source": " ".join(words), "target": " ".join(words[:2])}


MORE = {
    "pairs": ("trainer.max_steps=240", "trainer.val_check_interval=80", "task.generate_examples=20"),
    "random_labels": ("model.init=random", "model.gradient_checkpointing=true"),
    "lora_labels": ("peft=lora", "peft.rank=4", "optim.head_lr=1e-2", "optim.lr=2e-2"),
}
KINDS: dict[str, tuple[str, str, Any]] = {  # the run's name: family, data, row
    "labels": ("bert", "sentiment", labelled),
    "gpt2_labels": ("gpt2", "sentiment", labelled),
    "random_labels": ("gpt2", "sentiment", labelled),
    "lora_labels": ("bert", "sentiment", labelled),
    "several_labels": ("roberta", "sentiment", several),
    "entities": ("bert", "entities", tagged),
    "gpt2_entities": ("gpt2", "entities", tagged),
    "pairs": ("t5", "summaries", paired),
}


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """NAME.train.jsonl and NAME.val.jsonl of every kind."""
    folder = tmp_path_factory.mktemp("predict")
    for name, (_, _, row) in KINDS.items():
        lines = [json.dumps(row(words)) + "\n" for words in SENTENCES]
        (folder / f"{name}.train.jsonl").write_text("".join(lines[:60]))
        (folder / f"{name}.val.jsonl").write_text("".join(lines[60:]))
    return folder


@pytest.fixture(scope="session")
def trained(command, files, tmp_path_factory):
    """A finished run of a kind, made once."""
    made: dict[str, Path] = {}

    def run(name: str) -> Path:
        if name not in made:
            family, data, _ = KINDS[name]
            model = families.save_family(family, tmp_path_factory.mktemp(name))
            if name == "pairs":  # what a checkpoint was made to write with counts for nothing
                GenerationConfig(num_beams=3, min_new_tokens=9, decoder_start_token_id=0).save_pretrained(model)
            paths = [f"data.path={files / name}.train.jsonl", f"data.val_path={files / name}.val.jsonl"]
            arguments = [
                f"name={name}",
                f"data={data}",
                f"model.checkpoint={model}",
                *paths,
                *SETTINGS,
                *MORE.get(name, ()),
            ]
            done = command("train.py", *arguments)
            assert done.returncode == 0, done.stderr
            made[name] = command.home / "logs" / "runs" / name
        return made[name]

    return run


def predicted(command: Any, output: Path, *arguments: str) -> list[dict[str, Any]]:
    done = command("scripts/predict.py", f"output={output}", *arguments)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in output.read_text().splitlines()]


def rows_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def after(folder: Path) -> dict[str, float]:
    return json.loads((folder / "result.json").read_text())["metrics"]["after"]


@pytest.mark.parametrize("name", ["labels", "gpt2_labels", "random_labels", "lora_labels"])
def test_labels_are_those_of_validation_and_of_a_pipeline(command, trained, files, tmp_path, name):
    run, val = trained(name), files / f"{name}.val.jsonl"
    found = predicted(command, tmp_path / "out.jsonl", f"run={name}", f"input={val}")
    wanted = rows_of(val)
    losses = [-math.log(row["probabilities"][true["label"]]) for row, true in zip(found, wanted, strict=True)]
    assert sum(losses) / len(losses) == pytest.approx(after(run)["val/loss"], abs=1e-5)
    right = [row["label"] == true["label"] for row, true in zip(found, wanted, strict=True)]
    assert sum(right) / len(right) == pytest.approx(after(run)["val/accuracy"])
    assert [row["row"] for row in found] == [f"{val}:{line}" for line in range(1, 21)]

    classify = pipeline("text-classification", str(run / "export"), top_k=None)
    texts = [row["text"] for row in wanted]
    for row, scores in zip(found, classify(texts, batch_size=4, truncation=True, max_length=24), strict=True):
        by_name = {score["label"]: score["score"] for score in scores}
        assert by_name == pytest.approx(row["probabilities"], abs=1e-5)


def test_several_labels_have_a_probability_each(command, trained, files, tmp_path):
    run, val = trained("several_labels"), files / "several_labels.val.jsonl"
    found = predicted(command, tmp_path / "out.jsonl", "run=several_labels", f"input={val}")
    losses = [
        -math.log(chance if label in true["label"] else 1 - chance)
        for row, true in zip(found, rows_of(val), strict=True)
        for label, chance in row["probabilities"].items()
    ]
    assert sum(losses) / len(losses) == pytest.approx(after(run)["val/loss"], abs=1e-5)
    assert all(row["labels"] == [label for label, p in row["probabilities"].items() if p > 0.5] for row in found)


@pytest.mark.parametrize("name", ["entities", "gpt2_entities"])
def test_entities_are_those_of_validation_and_of_a_pipeline(command, trained, files, tmp_path, name):
    run, val = trained(name), files / f"{name}.val.jsonl"
    found, wanted = predicted(command, tmp_path / "out.jsonl", f"run={name}", f"input={val}"), rows_of(val)
    assert [row["tokens"] for row in found] == [row["tokens"] for row in wanted]
    counts = count_entities([(true["tags"], row["tags"]) for row, true in zip(found, wanted, strict=True)])
    metrics = entity_metrics(0.0, 1.0, counts, [])
    for key in ("precision", "recall", "f1"):
        assert metrics[key] == pytest.approx(after(run)[f"val/{key}"])
    assert all(
        " ".join(row["tokens"][e["first"] : e["last"] + 1]) == e["text"] for row in found for e in row["entities"]
    )
    tag = pipeline("token-classification", str(run / "export"))
    short = next(number for number, row in enumerate(wanted) if len(row["tokens"]) < 8)
    labels = {part["entity"] for part in tag(" ".join(wanted[short]["tokens"]))}
    assert labels <= {"B-PER", "B-LOC", "O"}


def test_texts_are_those_of_plain_generate(command, trained, files, tmp_path):
    run, val = trained("pairs"), files / "pairs.val.jsonl"
    found = predicted(command, tmp_path / "out.jsonl", "run=pairs", f"input={val}")
    model = AutoModelForSeq2SeqLM.from_pretrained(run / "export").eval()
    tokenizer = AutoTokenizer.from_pretrained(run / "export")
    for row, given in zip(found, rows_of(val), strict=True):
        ids = tokenizer(f"summarize: {given['source']}", return_tensors="pt", truncation=True, max_length=24).input_ids
        with torch.no_grad():
            written = model.generate(ids)[0]
        assert row["text"] == tokenizer.decode(written, skip_special_tokens=True)
    assert len({row["text"] for row in found}) > 5, "they differ from source to source"
    shares = overlap_metrics([row["text"] for row in found], [row["target"] for row in rows_of(val)])
    assert shares["chrf"] > 0.01
    for name, share in shares.items():
        assert share == pytest.approx(after(run)[f"val/{name}"], abs=1e-5)


def test_a_language_model_goes_on_with_each_text(command, finished, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("The class\n\nA function that\n\nThe class\n")
    arguments = (f"run={finished[0]}", f"input={prompts}", "max_new_tokens=5")
    found = predicted(command, tmp_path / "out.jsonl", *arguments)
    for row, prompt in zip(found, ("The class", "A function that", "The class"), strict=True):
        plain = command(
            "scripts/generate.py", f"run={finished[0]}", f"prompt={prompt}", "temperature=0", "max_new_tokens=5"
        )
        assert plain.stdout.strip() == (prompt + row["text"]).strip()


@pytest.mark.parametrize("name", ["labels", "gpt2_labels", "entities", "pairs"])
def test_batches_and_padding_change_nothing(command, trained, files, tmp_path, name):
    trained(name)
    alone, together = (
        predicted(
            command, tmp_path / f"{size}.jsonl", f"run={name}", f"input={files / name}.val.jsonl", f"batch_size={size}"
        )
        for size in (1, 7)
    )
    for one, other in zip(alone, together, strict=True):
        chances = [row.pop("probabilities", []) for row in (one, other)]
        assert one == other
        if isinstance(chances[0], dict):
            assert chances[0] == pytest.approx(chances[1], abs=1e-5)
        else:
            assert chances[0] == pytest.approx(chances[1], abs=1e-5)


def test_a_killed_prediction_goes_on_to_the_same_bytes(command, trained, tmp_path):
    trained("labels")
    file, output = tmp_path / "many.csv", tmp_path / "out.jsonl"
    texts = [" ".join(SENTENCES[number % 80][: 1 + number % 9]) for number in range(600)]
    texts[3] = ""
    file.write_text("text\n" + "".join(f'"{text}"\n' for text in texts))
    arguments = ("run=labels", f"input={file}")
    rows = predicted(command, output, *arguments)
    assert len(rows) == 600
    assert rows[3] == {"row": f"{file}:5", "text": ""}
    whole = output.read_bytes()
    output.write_bytes(whole[: len(whole) * 9 // 10])
    done = command("scripts/predict.py", f"output={output}", *arguments)
    assert "512 of them from before" in done.stdout
    assert output.read_bytes() == whole
    assert command("scripts/predict.py", f"output={output}", *arguments).returncode == 0
    assert output.read_bytes() == whole


def test_an_output_of_another_run_or_input_is_refused(command, trained, files, tmp_path):
    for name in ("labels", "gpt2_labels"):
        trained(name)
    val, output = files / "labels.val.jsonl", tmp_path / "out.jsonl"
    predicted(command, output, "run=labels", f"input={val}")
    for arguments, words in (
        (("run=gpt2_labels", f"input={val}"), "another model"),
        (("run=labels", f"input={files / 'labels.train.jsonl'}"), "another input"),
    ):
        refused = command("scripts/predict.py", f"output={output}", *arguments)
        assert refused.returncode == 2
        assert words in refused.stderr
        assert "Traceback" not in refused.stderr
    predicted(command, output, "run=gpt2_labels", f"input={val}", "fresh=true")


def inbox(folder: Path) -> Path:
    """A folder of texts with files of other kinds beside them."""
    folder.mkdir()
    for number in range(2):
        lines = [f'"{" ".join(SENTENCES[30 * number + each][:6])}"\n' for each in range(30)]
        (folder / f"part{number}.csv").write_text("text\n" + "".join(lines))
    for name in ("letter.docx", "scan.pdf", "archive.tar.gz"):
        (folder / name).touch()
    return folder


@pytest.mark.parametrize("pattern", ["", "/*"])
def test_an_output_beside_its_inputs_is_not_read(command, trained, tmp_path, pattern):
    trained("labels")
    folder = inbox(tmp_path / "inbox")
    output = folder / "labels.jsonl"
    arguments = ("scripts/predict.py", "run=labels", f"input={folder}{pattern}", f"output={output}")
    first = command(*arguments)
    assert "left out: 3 files of other kinds (.docx 1, .pdf 1, .tar.gz 1)\n60 rows in" in first.stdout
    whole = output.read_bytes()
    second = command(*arguments)
    assert "2 files that this program wrote\n60 rows in" in second.stdout
    assert output.read_bytes() == whole
    output.write_bytes(whole[:99])
    assert command(*arguments).returncode == 0
    assert output.read_bytes() == whole
    assert command(*arguments, "fresh=true").returncode == 0
    assert output.read_bytes() == whole


@pytest.mark.parametrize("fresh", ["false", "true"])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("part0.csv", "part0.csv is one of the inputs"),
        ("symbolic.jsonl", "symbolic.jsonl is one of the inputs"),
        ("hard.jsonl", "hard.jsonl is one of the inputs"),
        ("labels.tsv", "labels.jsonl"),
        ("letter.docx/labels.jsonl", "letter.docx is no folder"),
        ("", "is no file; take a file in it"),
    ],
)
def test_an_output_that_would_destroy_is_refused(command, trained, tmp_path, name, words, fresh):
    trained("labels")
    folder = inbox(tmp_path / "inbox")
    (folder / "symbolic.jsonl").symlink_to(folder / "part0.csv")
    (folder / "hard.jsonl").hardlink_to(folder / "part0.csv")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    read = f"input={folder}/part*.csv"
    refused = command("scripts/predict.py", "run=labels", read, f"output={folder}/{name}", f"fresh={fresh}")
    assert refused.returncode == 2
    assert words in refused.stderr
    assert "fresh" not in refused.stderr
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_the_files_of_the_run_are_no_output(command, trained, files, tmp_path):
    result = trained("labels") / "result.json"
    before = result.read_bytes()
    read = f"input={files / 'labels.val.jsonl'}"
    refused = command("scripts/predict.py", "run=labels", read, f"output={result}", "fresh=true")
    assert refused.returncode == 2
    assert "not made by this program; take another output" in refused.stderr
    assert result.read_bytes() == before


def test_an_output_is_replaced_only_where_the_input_is_sound(command, trained, files, tmp_path):
    trained("labels")
    output, bad = tmp_path / "out.jsonl", tmp_path / "bad.jsonl"
    predicted(command, output, "run=labels", f"input={files / 'labels.val.jsonl'}")
    before = output.read_bytes()
    bad.write_text('{"text": "fine"}\n{"text"\n')
    refused = command("scripts/predict.py", "run=labels", f"input={bad}", f"output={output}", "fresh=true")
    assert refused.returncode == 2
    assert "line 2: not JSON" in refused.stderr
    assert output.read_bytes() == before


def test_texts_in_another_encoding(command, trained, tmp_path):
    trained("labels")
    file = tmp_path / "a.txt"
    file.write_bytes("我們在這裡等你，請不要忘記帶雨傘。\n\nnice film\n".encode("big5"))
    arguments = ("scripts/predict.py", "run=labels", f"input={file}", f"output={tmp_path / 'o.jsonl'}")
    refused = command(*arguments)
    assert refused.returncode == 2
    assert "a.txt, line 1: not UTF-8 at byte 0 (0xa7); data.encoding=big5 would read it" in refused.stderr
    assert command(*arguments, "data.encoding=big5").returncode == 0
    assert len(rows_of(tmp_path / "o.jsonl")) == 2
    wrong = command(*arguments, "data.encoding=big6")
    assert "data.encoding=big6: no encoding of text has this name; did you mean big5?" in wrong.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["input=x.csv", "output=o"], "give run="),
        (["run=labels", "input=no.csv", "output=o"], "no such file"),
        (["run=labels", "input=x.csv", "output=o", "batch_size=0"], "must be at least 1"),
        (["run=labels", "input=x.csv", "output=o", "colour=red"], "there is no setting colour"),
    ],
)
def test_wrong_arguments_are_told(command, trained, arguments, words):
    trained("labels")
    refused = command("scripts/predict.py", *arguments)
    assert refused.returncode == 2
    assert words in refused.stderr
    assert "Traceback" not in refused.stderr


def test_of_a_classifier_with_adapters_the_head_is_trained_and_saved_with_them(trained):
    run = trained("lora_labels")
    weights = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    heads = {name for name in weights if ".lora_" not in name}
    assert heads == {
        f"model.{part}"
        for part in ("bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight", "classifier.bias")
    }
    assert (run / "export" / "adapter" / "adapter_model.safetensors").exists()
