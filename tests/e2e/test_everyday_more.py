"""More inputs as people keep them and lines as they type them, other ones than in the tests beside this one."""

import csv
import json
import random
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from everyday import (
    PEOPLE,
    PLACES,
    SHORT,
    config_of,
    notes,
    paragraph,
    result_of,
    review,
    scalars_of,
    sentence,
    tokens_of,
    write,
    write_csv,
    write_jsonl,
)

EMBEDDED = Path(__file__).parents[2] / "src/domaintune/assets/gpt2_tiny"
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# As Qwen3's and DeepSeek-R1's: what was thought before the last question is dropped.
REASONING = (
    "{% set ns = namespace(last=0) %}{% for m in messages %}{% if m['role'] == 'user' %}"
    "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in messages %}{% set content = m['content'] %}"
    "{% if m['role'] == 'assistant' and loop.index0 < ns.last and '</think>' in content %}"
    "{% set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# As Gemma's: no system turn, and `model` for the assistant.
GEMMA = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' "
    "+ m['content'] + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
Shell = Callable[..., subprocess.CompletedProcess[str]]
Ran = subprocess.CompletedProcess[str]


def said(ran: Ran) -> str:
    """All that was printed, in one line."""
    return " ".join((ran.stdout + " " + ran.stderr).split())


def done(ran: Ran) -> str:
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
    return said(ran)


def refused(ran: Ran) -> str:
    """The one message of a command that was refused."""
    assert ran.returncode == 2, ran.stdout[-3000:] + ran.stderr[-3000:]
    assert "error: " in ran.stderr, ran.stderr[-3000:]
    assert "Traceback" not in ran.stdout + ran.stderr
    return said(ran)


def sides(data: dict[str, Any]) -> int:
    """How many documents stand on all sides together."""
    return sum(data.get(side, {}).get("documents", 0) for side in ("train", "val", "test"))


def rows_left_out(data: dict[str, Any]) -> dict[str, int]:
    return {reason: account["rows"] for reason, account in data["left_out"].items()}


def placed(printed: object, file: str, line: int) -> bool:
    """Whether a line of a file is named, as file:line or in words."""
    return bool(re.search(rf"{re.escape(file)}\D{{1,9}}{line}\b", str(printed)))


def strings_of(value: object) -> Iterator[str]:
    """Each text within a value of JSON."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from strings_of(each)
    elif isinstance(value, list):
        for each in value:
            yield from strings_of(each)


def checkpoint_with(folder: Path, tokens: list[str], template: str = "", resize: bool = True) -> dict[str, int]:
    """The embedded checkpoint with special tokens more, and a chat template; the id of each token."""
    from transformers import AddedToken, AutoModelForCausalLM, AutoTokenizer

    shutil.copytree(EMBEDDED, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([AddedToken(each, special=True, normalized=False) for each in tokens], special_tokens=True)
    if template:
        tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    if resize:
        model = AutoModelForCausalLM.from_pretrained(folder)
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        model.save_pretrained(folder)
    return {each: tokenizer.convert_tokens_to_ids(each) for each in tokens}


def texts_of(cache: Path, folder: Path) -> list[str]:
    """The documents of a cache that only one run has used, with their special tokens."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    return [tokenizer.decode(ids, skip_special_tokens=False) for ids in tokens_of(cache)]


def turns(number: int) -> list[tuple[str, str]]:
    """A chat of two questions with their answers: (who, what)."""
    draw = random.Random(number)
    return [
        ("user", f"Who keeps the {draw.choice(PLACES)} on day {number}?"),
        ("assistant", f"The {draw.choice(PEOPLE)} number {number} keeps it."),
        ("user", f"And what was counted on day {number}?"),
        ("assistant", sentence(number)),
    ]


def messages(number: int) -> list[dict[str, str]]:
    return [{"role": who, "content": what} for who, what in turns(number)]


# What is typed arrives as typed


def test_a_german_file_name_with_its_comma_and_brackets(shell: Shell) -> None:
    """Typed a draft's name as the file manager shows it, logs below home, and measured it on a list of others."""
    name = "Briefe & Notizen, Teil #1 (Entwurf).txt"
    write(shell.home / name, notes(70))
    write(shell.home / "Tagebuch März.txt", notes(40))
    write(shell.home / "Notizen" / "alles = nichts.txt", paragraph(500))
    printed = done(shell(f'python train.py data.path="{name}" paths.logs=~/Läufe name=Größe+Maß {SHORT}'))
    folder = shell.home / "Läufe" / "runs" / "Größe+Maß"
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    assert result["status"] == "finished"
    assert result["data"]["documents_read"] == 70
    assert not (shell.home / "logs").exists()
    assert "Läufe/runs/Größe+Maß" in printed
    ran = shell(
        "python scripts/evaluate.py run=~/Läufe/runs/Größe+Maß 'data.path=[Tagebuch März.txt,~/Notizen]' "
        "data.unit=paragraph data.block_size=64 trainer.accelerator=cpu"
    )
    printed = done(ran)
    assert "loss" in printed
    assert re.search(r"documents\W+41\b", printed), printed


def test_a_run_named_by_its_learning_rate(shell: Shell) -> None:
    """Named a run 5e-5 after its rate and asked it for text by that name."""
    write(shell.home / "notes.txt", notes(60))
    done(shell(f"python train.py data.path=notes.txt optim.lr=5e-5 name=5e-5 {SHORT}"))
    assert [each.name for each in (shell.home / "logs" / "runs").iterdir()] == ["5e-5"]
    assert config_of(shell.home, "5e-5")["optim"]["lr"] == 5e-5
    done(shell('python scripts/generate.py run=5e-5 prompt="The baker, " max_new_tokens=4 temperature=0'))


def test_a_sweep_over_two_diaries_below_home(shell: Shell) -> None:
    """Compared two texts below home with -m, in a sweep named by a version, and looked at its leaderboard."""
    write(shell.home / "été.txt", notes(60))
    write(shell.home / "hiver 2.txt", notes(75))
    done(shell(f"python train.py -m name=1.20 'data.path=~/été.txt,~/hiver 2.txt' {SHORT}"))
    assert [each.name for each in (shell.home / "logs" / "sweeps").iterdir()] == ["1.20"]
    results = [json.loads(each.read_text()) for each in (shell.home / "logs/sweeps/1.20").glob("*/result.json")]
    assert sorted(each["data"]["documents_read"] for each in results) == [60, 75]
    printed = done(shell("python scripts/leaderboard.py name=1.20"))
    assert "hiver 2.txt" in printed
    assert (shell.home / "logs/sweeps/1.20/leaderboard.csv").is_file()


def test_a_folder_of_own_settings_wherever_it_is_named(shell: Shell) -> None:
    """Kept an experiment in a folder of their own and named that folder last in one line, amid the other."""
    write(shell.home / "notes.txt", notes(60))
    write(shell.home / "my settings/experiment/slow.yaml", "# @package _global_\noptim:\n  lr: 0.0007\n")
    done(shell(f"python train.py experiment=slow data.path=notes.txt name=last {SHORT} --config-dir ~/'my settings'"))
    assert config_of(shell.home, "last")["optim"]["lr"] == 0.0007
    done(shell(f"python train.py data.path=notes.txt --config-dir='my settings' experiment=slow name=amid {SHORT}"))
    assert config_of(shell.home, "amid")["optim"]["lr"] == 0.0007


def test_labels_parted_by_commas_and_as_lists_of_json(shell: Shell) -> None:
    """Had several labels in a cell, once parted by a comma and once as JSON wrote them."""
    several = [["warm"], ["warm", "local"], ["cold", "far"], ["cold"]]
    names = [several[number % 4] for number in range(80)]
    write_csv(shell.home / "commas.csv", "text,label", [(review(n), ",".join(names[n])) for n in range(80)])
    write_csv(shell.home / "lists.csv", "text,label", [(review(n), json.dumps(names[n])) for n in range(80)])
    done(shell(f'python train.py data=sentiment data.path=commas.csv data.label_separator="," name=commas {SHORT}'))
    assert set(result_of(shell.home, "commas")["data"]["train"]["classes"]) == {"warm", "local", "cold", "far"}
    assert config_of(shell.home, "commas")["data"]["label_separator"] == ","
    done(shell(f"python train.py data=sentiment data.path=lists.csv name=lists {SHORT}"))
    assert set(result_of(shell.home, "lists")["data"]["train"]["classes"]) == {"warm", "local", "cold", "far"}


def test_a_list_without_its_end(shell: Shell) -> None:
    """Forgot the bracket that ends a list of numbers."""
    write(shell.home / "notes.txt", notes(60))
    printed = refused(shell(f"python train.py data.path=notes.txt 'optim.betas=[0.9,0.95' name=forgot {SHORT}"))
    assert "optim.betas" in printed
    assert "]" in printed  # the sign that is missing
    assert "my book" not in printed  # quotes are no way out here
    assert not (shell.home / "logs/runs/forgot").exists()


# Nothing is overwritten or read twice


def labelled(folder: Path, first: int, last: int) -> list[dict[str, str]]:
    return [{"text": review(number), "label": "bad" if number % 2 else "good"} for number in range(first, last)]


def test_predictions_into_the_file_that_is_asked_about(shell: Shell) -> None:
    """Wanted the predictions to be added to the very file, named in another way, and then insisted."""
    file = write_jsonl(shell.home / "données/avis.jsonl", labelled(shell.home, 0, 80))
    done(shell(f"python train.py data=sentiment data.path=données/avis.jsonl name=avis {SHORT}"))
    before = file.read_bytes()
    printed = refused(shell("python scripts/predict.py run=avis input=données/avis.jsonl output=./données/avis.jsonl"))
    assert "avis.jsonl" in printed
    assert "fresh=true" not in printed
    assert file.read_bytes() == before
    refused(shell("python scripts/predict.py run=avis input=données output=~/données/avis.jsonl fresh=true"))
    assert file.read_bytes() == before


def test_training_where_predictions_lie(shell: Shell) -> None:
    """Let predictions be written beside the data, and trained again on that folder."""
    for part in range(2):
        write_jsonl(shell.home / f"corpus/part{part}.jsonl", labelled(shell.home, 40 * part, 40 * part + 40))
    done(shell(f"python train.py data=sentiment data.path=corpus name=first {SHORT}"))
    done(shell("python scripts/predict.py run=first input='corpus/*.jsonl' output=corpus/zz_labels.jsonl"))
    assert len((shell.home / "corpus/zz_labels.jsonl").read_text().splitlines()) == 80
    done(shell(f"python train.py data=sentiment data.path=corpus name=second {SHORT}"))
    first, second = (result_of(shell.home, name)["data"] for name in ("first", "second"))
    assert first["documents_read"] == second["documents_read"] == 80
    assert not second["left_out"]
    assert second["train"]["classes"] == first["train"]["classes"]


def test_papers_beside_their_notes(shell: Shell) -> None:
    """Pointed a glob at a folder of notes with papers in it, and predict at one with a spreadsheet."""
    for number in range(40):
        write(shell.home / f"lecture/note {number}.md", paragraph(number))
    for name in ("paper1.pdf", "paper2.pdf", "refs.bib", "talk.pptx", ".DS_Store"):
        write(shell.home / "lecture" / name, b"%PDF-1.5 \x00\xff")
    printed = done(shell(f"python train.py 'data.path=lecture/*' name=lecture {SHORT}"))
    data = result_of(shell.home, "lecture")["data"]
    assert data["documents_read"] == 40
    assert data["other_files"] == {".pdf": 2, ".bib": 1, ".pptx": 1}
    assert all(suffix in printed for suffix in (".pdf", ".bib", ".pptx"))
    write(shell.home / "anfragen/neu.txt", notes(3))
    write(shell.home / "anfragen/Liste.xlsx", b"PK\x03\x04")
    printed = done(shell("python scripts/predict.py run=lecture input=anfragen output=out.jsonl"))
    assert ".xlsx" in printed


# Each reason has its name and its count


def test_country_codes_with_namibia(shell: Shell) -> None:
    """Had countries as labels, NA for Namibia among them, and some cells were not filled in yet."""
    codes = ["DE", "NA", "ZA", ""]
    rows = [(f"{review(number)} {sentence(number)}", codes[number % 4]) for number in range(100)]
    write_csv(shell.home / "länder.csv", "text,Land", rows)
    printed = done(
        shell(f"python train.py data=sentiment data.path=länder.csv data.columns.label=Land name=land {SHORT}")
    )
    data = result_of(shell.home, "land")["data"]
    assert data["documents_read"] == 100
    assert rows_left_out(data) == {"no label": 25}
    assert placed(data["left_out"]["no label"]["places"], "länder.csv", 5)  # the first of them
    assert set(data["train"]["classes"]) == {"DE", "NA", "ZA"}
    assert sides(data) == 75
    assert re.search(r"\b25\b[^.]{0,80}label|label[^.]{0,80}\b25\b", printed), printed
    # A note that the word is taken for a class: more than its place in the list of classes and their numbers.
    about = "class|label|word|missing"
    assert re.search(rf"\bNA\b[^.]{{0,80}}({about})|({about})[^.]{{0,80}}\bNA\b", printed), printed


def test_odd_rows_of_a_crawl(shell: Shell) -> None:
    """Trained on a crawl of which a few rows are of another make, then asked to be strict about them."""
    rows: list[Any] = [{"text": paragraph(number)} for number in range(80)]
    rows[17] = {"text": {"html": "<p>odd</p>", "title": "odd"}}
    rows[33] = {"titel": "no text here", "url": "https://example.org"}
    rows[50] = {"text": "   \n"}
    write_jsonl(shell.home / "crawl.jsonl", rows)
    printed = done(shell(f"python train.py data.path=crawl.jsonl name=crawl {SHORT}"))
    data = result_of(shell.home, "crawl")["data"]
    assert data["documents_read"] == 80
    assert rows_left_out(data) == {"wrong type": 1, "missing field": 1, "blank": 1}
    assert placed(data["left_out"]["wrong type"]["places"], "crawl.jsonl", 18)
    assert placed(data["left_out"]["missing field"]["places"], "crawl.jsonl", 34)
    assert sides(data) == 77
    assert placed(printed, "crawl.jsonl", 18)
    printed = refused(shell(f"python train.py data.path=crawl.jsonl data.strict=true name=strict {SHORT}"))
    assert placed(printed, "crawl.jsonl", 18) or placed(printed, "crawl.jsonl", 34)


def test_questions_that_wait_for_an_answer(shell: Shell) -> None:
    """Trained on a forum's questions of which some have no answer; then on a file of those alone."""
    rows = [(f"Wo liegt das Heft Nr. {n}?\n", "" if n % 10 == 3 else sentence(n)) for n in range(80)]
    write_csv(shell.home / "forum.csv", "Frage,Antwort", rows)
    columns = "data.columns.prompt=Frage data.columns.completion=Antwort"
    done(shell(f"python train.py data=instructions data.path=forum.csv {columns} name=forum {SHORT}"))
    data = result_of(shell.home, "forum")["data"]
    assert rows_left_out(data) == {"no answer": 8}
    assert data["documents_read"] == 80
    assert sides(data) == 72
    write_csv(shell.home / "offen.csv", "Frage,Antwort", [row for row in rows if not row[1]])
    printed = refused(shell(f"python train.py data=instructions data.path=offen.csv {columns} name=offen {SHORT}"))
    assert "no answer" in printed
    assert re.search(r"\b8\b", printed), printed


def test_system_turns_under_a_template_that_has_none(shell: Shell) -> None:
    """Trained a model whose template refuses system turns on chats of which nine have one."""
    checkpoint_with(shell.home / "gemmalike", ["<start_of_turn>", "<end_of_turn>"], GEMMA)
    system = {"role": "system", "content": "Answer in one sentence."}
    chats = [{"messages": ([system] if n % 9 == 4 else []) + messages(n)} for n in range(81)]
    write_jsonl(shell.home / "chats.jsonl", chats)
    printed = done(
        shell(f"python train.py model.checkpoint=~/gemmalike data=instructions data.path=chats.jsonl name=g {SHORT}")
    )
    data = result_of(shell.home, "g")["data"]
    assert rows_left_out(data) == {"refused by the chat template": 9}
    assert "System role not supported" in str(data["left_out"]["refused by the chat template"]) + printed
    assert sides(data) == 72


# Chats as people have them


def test_sharegpt_as_it_was_published(shell: Shell) -> None:
    """Trained on a list in ShareGPT's form, with its id, system turns, human and gpt."""
    names = {"user": "human", "assistant": "gpt"}
    chats = []
    for number in range(80):
        said_by = [{"from": names[who], "value": what} for who, what in turns(number)]
        if number % 3 == 0:
            said_by.insert(0, {"from": "system", "value": f"You help keeper {number}."})
        chats.append({"id": f"QWJhYvA_{number}", "conversations": said_by})
    write(shell.home / "sharegpt.json", json.dumps(chats, ensure_ascii=False, indent=1))
    cache = shell.home / "cache"
    ran = shell(
        f"python train.py data=instructions data.path=sharegpt.json name=share {SHORT} data.block_size=256",
        DOMAINTUNE_CACHE=str(cache),
    )
    done(ran)
    data = result_of(shell.home, "share")["data"]
    assert data["documents_read"] == sides(data) == 80
    assert not data["left_out"]
    (text,) = [each for each in texts_of(cache, shell.home / "logs/runs/share/export") if "on day 33?" in each]
    places = [text.index(each) for each in ("You help keeper 33.", *(what for _, what in turns(33)))]
    assert places == sorted(places)


def test_alpaca_rows_with_and_without_input(shell: Shell) -> None:
    """Trained on a list in Alpaca's form, where the input is mostly empty."""
    rows = [
        {
            "instruction": f"Name the keeper of lamp {n}.",
            "input": f"Hint {n}." if n % 3 == 0 else "",
            "output": sentence(n),
        }
        for n in range(90)
    ]
    write(shell.home / "alpaca_data.json", json.dumps(rows, indent=4))
    cache = shell.home / "cache"
    ran = shell(
        f"python train.py data=instructions data.path=alpaca_data.json name=alpaca {SHORT} data.block_size=256",
        DOMAINTUNE_CACHE=str(cache),
    )
    done(ran)
    data = result_of(shell.home, "alpaca")["data"]
    assert data["documents_read"] == sides(data) == 90
    assert not data["left_out"]
    texts = texts_of(cache, shell.home / "logs/runs/alpaca/export")
    for number in (30, 31):
        (text,) = [each for each in texts if f"lamp {number}." in each]
        assert sentence(number) in text
        assert (f"Hint {number}." in text) == (number == 30)


def test_a_call_centre_with_its_own_words(shell: Shell) -> None:
    """Had chats with keys and roles of their own, saw what is not known, and named it."""
    roles = {"user": "Kunde", "assistant": "Berater"}
    chats = [{"dialog": [{"wer": roles[who], "was": what} for who, what in turns(n)]} for n in range(80)]
    write_jsonl(shell.home / "gespräche.jsonl", chats)
    line = (
        "python train.py data=instructions data.path=gespräche.jsonl data.columns.messages=dialog "
        f"data.columns.role=wer data.columns.content=was {SHORT}"
    )
    printed = refused(shell(f"{line} name=fremd"))
    assert "unknown role" in printed
    assert "Kunde" in printed
    assert "Berater" in printed
    assert "data.roles" in printed
    assert re.search(r"\b80\b", printed), printed
    done(shell(f"{line} name=eigen 'data.roles={{Kunde: user, Berater: assistant}}'"))
    data = result_of(shell.home, "eigen")["data"]
    assert data["documents_read"] == sides(data) == 80
    assert not data["left_out"]


def test_stories_with_marks_between_them(shell: Shell) -> None:
    """Had stories in one file with the model's end of text between them, and in rows that end in it."""
    stories = [paragraph(number) for number in range(70)]
    mark = "<|endoftext|>"
    write_jsonl(shell.home / "stories.jsonl", [{"text": story + mark} for story in stories])
    printed = done(shell(f"python train.py data.path=stories.jsonl name=plain {SHORT}"))
    assert mark in printed
    assert "data.marks" in printed
    write(shell.home / "stories.txt", "".join(f"{story}\n{mark}\n" for story in stories))
    cache = shell.home / "cache"
    ran = shell(f"python train.py data.path=stories.txt data.marks=end name=marks {SHORT}", DOMAINTUNE_CACHE=str(cache))
    done(ran)
    assert sides(result_of(shell.home, "marks")["data"]) == 70
    texts = texts_of(cache, shell.home / "logs/runs/marks/export")
    assert sorted(each.removesuffix(mark).strip() for each in texts) == sorted(stories)


def test_chats_about_the_signs_of_chats(shell: Shell) -> None:
    """Trained a ChatML model on a course in which people ask what <|im_end|> is."""
    ids = checkpoint_with(shell.home / "chatml", ["<|im_start|>", "<|im_end|>"], CHATML)
    chats = [
        {
            "messages": [
                {"role": "user", "content": f"Lesson {n}: what does <|im_end|> say, and <|im_start|>?"},
                {"role": "assistant", "content": f"A turn ends at <|im_end|>, as in lesson {n}, and {sentence(n)}"},
            ]
        }
        for n in range(70)
    ]
    write_jsonl(shell.home / "course.jsonl", chats)
    cache = shell.home / "cache"
    ran = shell(
        f"python train.py model.checkpoint=chatml data=instructions data.path=course.jsonl name=course {SHORT} "
        "data.block_size=256",
        DOMAINTUNE_CACHE=str(cache),
    )
    done(ran)
    documents = tokens_of(cache)
    assert len(documents) == 70
    assert {each.count(ids["<|im_start|>"]) for each in documents} == {2}
    assert {each.count(ids["<|im_end|>"]) for each in documents} == {2}
    assert all(text.count("<|im_end|>") == 4 for text in texts_of(cache, shell.home / "chatml"))


def test_a_reasoning_model_with_two_thoughts(shell: Shell) -> None:
    """Trained a model that drops past thinking on chats in which both answers were thought about."""
    checkpoint_with(shell.home / "thinker", ["<|im_start|>", "<|im_end|>"], REASONING)
    chats = []
    for number in range(70):
        chat = messages(number)
        chat[1]["content"] = f"<think>\nFirst thought {number}.\n</think>\n\n" + chat[1]["content"]
        chat[3]["content"] = f"<think>\nSecond thought {number}.\n</think>\n\n" + chat[3]["content"]
        chats.append({"messages": chat})
    write_jsonl(shell.home / "thoughts.jsonl", chats)
    cache = shell.home / "cache"
    ran = shell(
        f"python train.py model.checkpoint=thinker data=instructions data.path=thoughts.jsonl name=thinker {SHORT} "
        "data.block_size=256",
        DOMAINTUNE_CACHE=str(cache),
    )
    done(ran)
    data = result_of(shell.home, "thinker")["data"]
    assert data["documents_read"] == 70
    assert not data["left_out"]
    texts = texts_of(cache, shell.home / "thinker")
    for number in range(70):
        assert any(f"Second thought {number}." in each for each in texts)
        # Whoever is asked the second question no longer sees the first thought.
        seen = [each for each in texts if f"And what was counted on day {number}?" in each]
        assert seen
        for each in seen:  # each answer is a sequence of its own: the last one begins with the first question again
            last = each[each.rindex(turns(number)[0][1]) :]
            assert f"And what was counted on day {number}?" in last
            assert f"First thought {number}." not in last


# Where writing stops


def test_two_ids_that_end_a_text(shell: Shell) -> None:
    """Took a checkpoint whose generation config ends a text at two ids, as Llama 3's does."""
    from transformers import AutoTokenizer

    line = 'scripts/generate.py {} prompt="The keeper of the" max_new_tokens=24 temperature=0'
    long = shell("python " + line.format("model.checkpoint=embedded:gpt2_tiny"))
    done(long)
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED)
    written = tokenizer.encode(long.stdout.strip().removeprefix("The keeper of the"))
    stop = max(set(written), key=written.index)  # what it writes last for the first time
    shutil.copytree(EMBEDDED, shell.home / "two_ends")
    file = shell.home / "two_ends/generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token_id": [0, stop]}))
    short = shell("python " + line.format("model.checkpoint=~/two_ends"))
    done(short)
    assert 0 < len(short.stdout.strip()) < len(long.stdout.strip())
    assert long.stdout.strip().startswith(short.stdout.strip())
    write(shell.home / "notes.txt", notes(60))
    done(shell(f"python train.py model.checkpoint=two_ends data.path=notes.txt name=ends {SHORT}"))
    export = json.loads((shell.home / "logs/runs/ends/export/generation_config.json").read_text())
    assert sorted(export["eos_token_id"]) == [0, stop]


def test_the_export_of_a_chat_model_in_batches(shell: Shell) -> None:
    """Trained chats under a template with its own end of a turn, and wrote with the export two at a time."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

    ids = checkpoint_with(shell.home / "gemmalike", ["<start_of_turn>", "<end_of_turn>"], GEMMA)
    write_jsonl(shell.home / "chats.jsonl", [{"messages": messages(n)} for n in range(60)])
    done(
        shell(f"python train.py model.checkpoint=gemmalike data=instructions data.path=chats.jsonl name=turns {SHORT}")
    )
    export = shell.home / "logs/runs/turns/export"
    ends = json.loads((export / "generation_config.json").read_text())["eos_token_id"]
    assert ids["<end_of_turn>"] in ([ends] if isinstance(ends, int) else ends)
    model = AutoModelForCausalLM.from_pretrained(export, dtype="float32")
    write_text = pipeline("text-generation", model=model, tokenizer=AutoTokenizer.from_pretrained(export), device="cpu")
    prompts = ["The baker", "On the second day the keeper of the lighthouse counted", "Who"]
    alone = [write_text(each, max_new_tokens=8, do_sample=False)[0]["generated_text"] for each in prompts]
    together = write_text(prompts, batch_size=2, max_new_tokens=8, do_sample=False)
    assert [each[0]["generated_text"] for each in together] == alone


# Labels


def test_whole_numbers_and_floats_from_two_writers(shell: Shell) -> None:
    """Had labels as 1 and 0 from a script and as 1.0 and 0.0 from a spreadsheet, and trained on both files."""
    write_jsonl(shell.home / "script.jsonl", [{"text": review(n), "label": n % 2} for n in range(50)])
    write_csv(shell.home / "sheet.csv", "text,label", [(review(n), f"{n % 2}.0") for n in range(50, 100)])
    done(shell(f"python train.py data=sentiment 'data.path=[script.jsonl,sheet.csv]' name=both {SHORT}"))
    data = result_of(shell.home, "both")["data"]
    assert set(data["train"]["classes"]) == {"0", "1"}
    assert sum(data["train"]["classes"].values()) == data["train"]["documents"]
    assert data["documents_read"] == 100


def test_classes_that_only_their_spelling_parts(shell: Shell) -> None:
    """Labelled by hand, and wrote Sport, sport and "Sport " for one thing."""
    names = ["Sport", "Politik", "sport", "Politik", "Sport "]
    write_csv(shell.home / "hand.csv", "text,label", [(review(n), names[n % 5]) for n in range(100)])
    printed = done(shell(f"python train.py data=sentiment data.path=hand.csv name=hand {SHORT}"))
    # More than the list of the classes: a sentence that says what is odd about the two.
    assert re.search(
        r"(spel|writ|case|capital|differ|alike)[^.]{0,120}\b[Ss]port\b|\b[Ss]port\b[^.]{0,120}(spel|writ|case|differ|alike)",
        printed,
    ), printed
    assert "Politik" in result_of(shell.home, "hand")["data"]["train"]["classes"]


# Text files


def test_reviews_from_an_old_japanese_spreadsheet(shell: Shell) -> None:
    """Saved a table as Excel in Japan does, was told what reads it, and said so."""
    rows = [
        (f"{n}番の店は{'とても静かで良い' if n % 2 else '少し高くて残念な'}所です。", "良い" if n % 2 else "悪い")
        for n in range(80)
    ]
    text = "text,label\r\n" + "".join(f"{a},{b}\r\n" for a, b in rows)
    write(shell.home / "感想.csv", text.encode("cp932"))
    printed = refused(shell(f"python train.py data=sentiment data.path=感想.csv name=first {SHORT}"))
    assert "感想.csv" in printed
    assert "data.encoding" in printed
    assert re.search(r"shift[_-]?jis|cp932|sjis", printed, re.IGNORECASE), printed
    done(shell(f"python train.py data=sentiment data.path=感想.csv data.encoding=Shift-JIS name=again {SHORT}"))
    data = result_of(shell.home, "again")["data"]
    assert set(data["train"]["classes"]) == {"良い", "悪い"}
    assert data["documents_read"] == sides(data) == 80


def test_prompts_in_big5(shell: Shell) -> None:
    """Kept the prompts in a file of an old editor from Taiwan."""
    write(shell.home / "問題.txt", "臺灣最高的山是哪一座?\r\n今天的天氣如何?\r\n請介紹圖書館。\r\n".encode("big5"))
    printed = refused(
        shell("python scripts/generate.py model.checkpoint=embedded:gpt2_tiny prompts=問題.txt max_new_tokens=4")
    )
    assert "問題.txt" in printed
    assert re.search(r"big-?5|cp950", printed, re.IGNORECASE), printed


def test_japanese_words_and_a_tag_that_was_forgotten(shell: Shell) -> None:
    """Had tagged words with ideographic spaces among them, and one line that lacks its tag."""
    lines, slip = [], 0
    for number in range(80):
        words = [
            ("東京", "B-LOC"),
            ("の", "O"),
            (f"{number}番", "O"),
            ("\u3000", "O"),
            ("佐藤", "B-PER"),
            ("z.\u202fB.", "O"),
        ]
        for word, tag in words:
            lines.append(f"{word}\t{tag}")
            if number == 37 and word == "佐藤":
                slip, lines[-1] = len(lines), word
        lines.append("")
    write(shell.home / "新聞.conll", "\n".join(lines) + "\n")
    done(shell(f"python train.py data=entities data.path=新聞.conll name=shinbun {SHORT}"))
    data = result_of(shell.home, "shinbun")["data"]
    assert data["documents_read"] == 80
    assert sum(rows_left_out(data).values()) == 1
    assert placed([account["places"] for account in data["left_out"].values()], "新聞.conll", slip)
    assert sides(data) == 79
    write(shell.home / "neu.conll", "\n".join(lines[:7]) + "\n")
    done(shell("python scripts/predict.py run=shinbun input=neu.conll output=out.jsonl"))
    (row,) = [json.loads(line) for line in (shell.home / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {"東京", "\u3000", "z.\u202fB."} <= set(strings_of(row))


# Two settings that mean one thing are one


def test_a_sweep_ranked_by_its_loss(shell: Shell) -> None:
    """Swept the rate of a classifier and let its loss decide, without a word on the direction."""
    write_jsonl(shell.home / "reviews.jsonl", labelled(shell.home, 0, 90))
    line = "python train.py -m name=byloss data=sentiment data.path=reviews.jsonl task.monitor=val/loss"
    done(shell(f"{line} optim.lr=1e-9,1e-3 {SHORT} trainer.max_steps=4 trainer.val_check_interval=2"))
    losses = {}
    for file in (shell.home / "logs/sweeps/byloss").glob("*/result.json"):
        rate = re.search(r"optim\.lr=([0-9.e-]+)", file.parent.name)
        assert rate
        metrics = json.loads(file.read_text())["metrics"]
        losses[float(rate[1])] = metrics["after"]["val/loss"]
        assert metrics["after"]["val/loss"] <= metrics["last"]["val/loss"] + 1e-6
    assert len(losses) == 2
    done(shell("python scripts/leaderboard.py name=byloss"))
    with (shell.home / "logs/sweeps/byloss/leaderboard.csv").open(encoding="utf-8", newline="") as file:
        ranked = [float(row["optim.lr"]) for row in csv.DictReader(file)]
    assert ranked[0] == min(losses, key=lambda rate: losses[rate])


def test_a_warm_up_that_does_not_fit(shell: Shell) -> None:
    """Took a warm-up from a paper into a run of six steps, and a share of a run that only its time ends."""
    write(shell.home / "notes.txt", notes(60))
    line = f"python train.py data.path=notes.txt scheduler=constant optim.lr=1e-3 {SHORT} trainer.log_every_n_steps=1"
    printed = done(shell(f"{line} trainer.max_steps=6 scheduler.warmup_steps=500 name=paper"))
    assert max(value for _, value in scalars_of(shell.home, "paper")["lr"]) == pytest.approx(1e-3)
    assert "500" in printed
    assert re.search(r"warm\S*[^.]{0,100}\b3\b", printed), printed
    printed = refused(
        shell(f"{line} trainer.max_steps=-1 trainer.max_time=00:00:00:20 scheduler.warmup_steps=0.1 name=share")
    )
    assert "scheduler.warmup_steps" in printed


# A checkpoint is opened for what it learnt


def test_a_tagger_that_should_write(shell: Shell) -> None:
    """Mixed up two folders: asked a tagger's export to write, and went on from it with plain text."""
    rows = [
        {
            "tokens": ["The", who, "of", "the", where, f"({n})", "."],
            "tags": ["O", "B-who", "O", "O", "B-where", "O", "O"],
        }
        for n, (who, where) in enumerate((PEOPLE[n % 10], PLACES[n % 12]) for n in range(80))
    ]
    write_jsonl(shell.home / "ner.jsonl", rows)
    done(shell(f"python train.py data=entities data.path=ner.jsonl name=ner {SHORT}"))
    printed = refused(shell('python scripts/generate.py model.checkpoint=logs/runs/ner/export prompt="The baker"'))
    learnt = r"token_classification|TokenClassification|\btag|\blabel"
    assert re.search(learnt, printed), printed
    write(shell.home / "notes.txt", notes(60))
    ran = shell(f"python train.py model.checkpoint=logs/runs/ner/export data.path=notes.txt name=mixed {SHORT}")
    assert ran.returncode in (0, 2), said(ran)
    assert re.search(learnt, said(ran)), said(ran)


def test_tokens_added_for_a_dialogue(shell: Shell) -> None:
    """Added five tokens to the tokenizer alone, was told, and let the embeddings grow."""
    added = ["<|user|>", "<|bot|>", "<|sep|>", "[NAME]", "[ORT]"]
    checkpoint_with(shell.home / "mehr", added, resize=False)
    write_jsonl(shell.home / "reviews.jsonl", labelled(shell.home, 0, 80))
    line = f"python train.py model.checkpoint=~/mehr data=sentiment data.path=reviews.jsonl {SHORT}"
    cache = shell.home / "cache"
    printed = refused(shell(f"{line} name=refused", DOMAINTUNE_CACHE=str(cache))).replace(",", "")
    assert "8197" in printed
    assert "8192" in printed
    assert "model.resize_embeddings=true" in printed
    assert not list(cache.glob("tokens/*"))  # nothing was encoded
    done(shell(f"{line} model.resize_embeddings=true name=grown"))
    config = json.loads((shell.home / "logs/runs/grown/export/config.json").read_text())
    assert config["vocab_size"] >= 8197


# Identity is content


def test_tidying_up_between_two_days(shell: Shell) -> None:
    """Trained, moved the notes and the checkpoint into an archive, and went on the next day."""
    shutil.copytree(EMBEDDED, shell.home / "modelle/basis")
    for number in range(50):
        write(shell.home / f"Tagebuch/Tag {number}.txt", paragraph(number))
    line = f"python train.py name=tage {SHORT} trainer.log_every_n_steps=1"
    done(shell(f"{line} model.checkpoint=modelle/basis data.path=Tagebuch"))
    first = result_of(shell.home, "tage")
    (shell.home / "Archiv").mkdir()
    shutil.move(shell.home / "Tagebuch", shell.home / "Archiv/Tagebuch 2025")
    shutil.move(shell.home / "modelle/basis", shell.home / "Archiv/basis")
    moved = "model.checkpoint=~/Archiv/basis 'data.path=Archiv/Tagebuch 2025'"
    done(shell(f"{line} {moved}"))  # finished: reported
    assert result_of(shell.home, "tage")["metrics"] == first["metrics"]
    done(shell(f"{line} {moved} trainer.max_steps=4"))
    assert [each.name for each in (shell.home / "logs/runs").iterdir()] == ["tage"]
    result = result_of(shell.home, "tage")
    assert result["status"] == "finished"
    assert result["metrics"]["before"] == first["metrics"]["before"]
    steps = [step for step, _ in scalars_of(shell.home, "tage")["train/loss"]]
    assert len(steps) == len(set(steps)) == 4
