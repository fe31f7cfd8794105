"""generate.py and evaluate.py, as a person types them."""

import gzip
import json
import math
import random
import re
import shutil
from types import SimpleNamespace

import everyday
import families
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


@pytest.mark.parametrize("prompt", ["Hello, world", "2+2=(x)", "{a: [1, 2]}", "It's ${here}", "naïve café"])
def test_any_prompt_works_as_typed(command, finished, prompt):
    done = command("scripts/generate.py", "run=finished", f"prompt={prompt}", "max_new_tokens=3")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(prompt)


def test_a_run_is_found_by_a_path_with_an_equal_sign(command, finished):
    copy = command.home / "logs" / "runs" / "a=b"
    shutil.copytree(finished[0], copy, ignore=shutil.ignore_patterns("checkpoints"))
    done = command("scripts/generate.py", "run=logs/runs/a=b", "prompt=x", "max_new_tokens=2")
    assert done.returncode == 0, done.stderr


def test_prompts_come_from_a_file_and_the_seed_decides(command, finished, tmp_path):
    (tmp_path / "prompts.txt").write_text("One\nTwo\n")
    arguments = ["run=finished", f"prompts={tmp_path / 'prompts.txt'}", "max_new_tokens=4", "seed=3"]
    first, second = (command("scripts/generate.py", *arguments).stdout for _ in range(2))
    assert first == second
    assert first.startswith("One")
    assert "\nTwo" in first


ODD = "".join(["One\u2028more", "\u0085", "\x0c", "\x1c"])


@pytest.mark.parametrize(
    ("name", "content", "setting"),
    [
        ("windows.txt", b"\xef\xbb\xbf" + f"{ODD}\r\n\r\nTwo\r\n".encode(), []),
        ("mac", f"{ODD}\rTwo".encode(), []),
        ("packed.txt.gz", gzip.compress(f"{ODD}\nTwo".encode(), mtime=0), []),
        ("wide.txt", f"{ODD}\nTwo".encode("utf-16"), []),
        ("named.txt", f"{ODD}\nTwo".encode("gb18030"), ["data.encoding=gb18030"]),
    ],
)
def test_prompts_are_read_as_data_is(command, finished, tmp_path, name, content, setting):
    (tmp_path / name).write_bytes(content)
    arguments = [f"prompts={tmp_path / name}", "max_new_tokens=2", "temperature=0", *setting]
    done = command("scripts/generate.py", "run=finished", *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(ODD)
    assert done.stdout.count("\n---\n") == 1
    assert "\n---\nTwo" in done.stdout


@pytest.mark.parametrize(
    ("content", "setting", "words"),
    [
        (b"One\nTw\0o\n", [], "prompts.txt, line 2: a NUL character"),
        (b"One\ncaf\xe9\n", [], "line 2: not UTF-8 at byte 7 (0xe9); data.encoding=windows-1252 would read it"),
        ("我們".encode("gbk"), ["data.encoding=big5"], "line 1: not BIG5 at byte "),
        (b"One\n", ["data.encoding=base64"], "data.encoding=base64: no encoding of text"),
        (b"\xef\xbb\xbf\r\n \r\n", [], "no prompt in it"),
    ],
)
def test_prompts_that_cannot_be_read_are_told(command, finished, tmp_path, content, setting, words):
    (tmp_path / "prompts.txt").write_bytes(content)
    done = command("scripts/generate.py", "run=finished", f"prompts={tmp_path / 'prompts.txt'}", *setting)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_an_export_works_as_a_checkpoint_and_greedy_text_is_that_of_transformers(command, finished):
    export = finished[0] / "export"
    done = command(
        "scripts/generate.py", f"model.checkpoint={export}", "prompt=The value", "temperature=0", "max_new_tokens=5"
    )
    tokenizer, model = AutoTokenizer.from_pretrained(export), AutoModelForCausalLM.from_pretrained(export)
    ids = tokenizer("The value", return_tensors="pt")
    expected = tokenizer.decode(model.generate(**ids, do_sample=False, max_new_tokens=5)[0], skip_special_tokens=True)
    assert done.stdout.strip() == expected.strip()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["prompt=x"], "run=NAME"),
        (["run=nowhere", "prompt=x"], "nowhere"),
        (["run=finished"], "prompt=TEXT"),
        (["run=finished", "prompt=x", "temprature=1"], "temperature"),
        (["run=finished", "prompt=x", "top_p=2"], "top_p"),
        (["run=finished", "prompt=x", "max_new_tokens=64"], "64 positions"),
        (["hello"], "key=value"),
    ],
)
def test_wrong_arguments_are_told(command, finished, arguments, word):
    done = command("scripts/generate.py", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert word in done.stderr


def test_evaluate_gives_the_run_s_own_validation_loss(command, finished):
    done = command("scripts/evaluate.py", "run=finished", "split=val")
    assert done.returncode == 0, done.stderr
    expected = json.loads((finished[0] / "result.json").read_text())["metrics"]["after"]["val/loss"]
    printed = float(re.search(r"loss\D+([\d.]+)", done.stdout)[1])
    assert printed == pytest.approx(expected, rel=1e-5)  # it prints six digits


def test_base_and_fine_tuned_are_compared_on_another_text(command, finished, small_model, tmp_path):
    (tmp_path / "other,text=1.txt").write_text("The first paragraph.\n\nThe second one.\n")
    printed = []
    for model in ("run=finished", f"model.checkpoint={small_model}"):
        done = command("scripts/evaluate.py", model, f"data.path={tmp_path}/other,text=1.txt", "data.block_size=64")
        assert done.returncode == 0, done.stderr
        assert "documents" in done.stdout
        printed.append(done.stdout)
    assert printed[0] != printed[1]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_evaluate_measures_what_plain_transformers_measures(command, tmp_path, family):
    """Also of a tokenizer that puts a sign before each text."""
    folder = families.save_family(family, tmp_path / family)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    families.enlarge(SimpleNamespace(model=model))
    model.save_pretrained(folder)
    texts = [" ".join(families.words(random.Random(number), 8)) for number in range(20)]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    arguments = (f"model.checkpoint={folder}", f"data.path={tmp_path}/texts.jsonl", "data.block_size=64")
    done = command(
        "scripts/evaluate.py", *arguments, "data.dedup=none", "trainer.precision=32", "trainer.accelerator=cpu"
    )
    assert done.returncode == 0, done.stderr
    loss = predicted = 0
    for text in texts:
        ids = torch.tensor([[*tokenizer(text)["input_ids"], tokenizer.eos_token_id]])
        with torch.no_grad():
            loss += float(model(ids, labels=ids).loss) * (ids.shape[1] - 1)
        predicted += ids.shape[1] - 1
    assert everyday.figure(done.stdout, "predicted tokens") == predicted
    assert everyday.figure(done.stdout, "perplexity") == pytest.approx(math.exp(loss / predicted), rel=1e-4)


def test_a_path_that_is_missing_is_told(command, finished):
    done = command("scripts/evaluate.py", "run=finished", "data.path=nowhere.txt")
    assert done.returncode == 2
    assert "nowhere.txt" in done.stderr
