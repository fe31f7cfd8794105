import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from domaintune.config.schema import DataConfig
from domaintune.data import deduplicating
from domaintune.data.deduplicating import near_duplicates
from domaintune.data.formats.choosing import FORMATS
from domaintune.data.splitting import LEFT_OUT, TEST, TRAIN, VAL, Splits, read_splits

DRAW = random.Random(0)
LETTERS = "etaoinshrdlucmfwypvbgk"
WORDS = ["".join(DRAW.choices(LETTERS, k=DRAW.randint(2, 10))) for _ in range(5000)]
OFTEN = [1 / (number + 3) for number in range(len(WORDS))]


def text(draw: random.Random, words: int) -> list[str]:
    """Made-up words, a few of them as common as those of a language."""
    return draw.choices(WORDS, weights=OFTEN, k=words)


def swapped(pairs: int) -> Callable[[random.Random, list[str]], str]:
    def change(draw: random.Random, words: list[str]) -> str:
        words = list(words)
        for place in draw.sample(range(0, len(words) - 1, 2), pairs):
            words[place], words[place + 1] = words[place + 1], words[place]
        return " ".join(words)

    return change


def punctuated(draw: random.Random, words: list[str]) -> str:
    places = set(draw.sample(range(len(words)), 3))
    return " ".join(word + ",.!"[number % 3] * (number in places) for number, word in enumerate(words))


def replaced(draw: random.Random, words: list[str]) -> str:
    place = draw.randrange(len(words))
    return " ".join([*words[:place], draw.choice(WORDS), *words[place + 1 :]])


def spaced(draw: random.Random, words: list[str]) -> str:
    return "\n ".join(word + draw.choice(["", " ", "\t", "\r\n"]) for word in words)


CHANGES: dict[str, Callable[[random.Random, list[str]], str]] = {
    "a pair of words swapped": swapped(1),
    "two pairs of words swapped": swapped(2),
    "three pairs of words swapped": swapped(3),
    "upper case": lambda _, words: " ".join(words).upper(),
    "titles": lambda _, words: " ".join(words).title(),
    "white space": spaced,
    "punctuation": punctuated,
    "a word replaced": replaced,
}


def marked(folder: Path, val: list[Any], test: list[Any], train: list[Any], format: str = "text") -> list[list[bool]]:
    """What is left out of each of these sides."""
    documents = tiny.documents(folder, *val, *test, *train, format=format)
    side = np.repeat([0, 1, 2], [len(val), len(test), len(train)])
    found = near_duplicates(documents, [side == number for number in range(3)], FORMATS[format])
    return [found[side == number].tolist() for number in range(3)]


def read(folder: Path, dedup: str, texts: list[str], **settings: Any) -> Splits:
    path = tiny.jsonl(folder / "all.jsonl", *texts)
    return read_splits(DataConfig(path=path, dedup=dedup, **settings), str(folder / "cache"))


@pytest.mark.parametrize("change", CHANGES)
def test_no_near_duplicate_is_on_another_side_than_its_partner(tmp_path: Path, change: str) -> None:
    draw = random.Random(change)
    first = [text(draw, draw.randint(15, 40) if number % 2 else draw.randint(40, 300)) for number in range(150)]
    texts = [*(" ".join(words) for words in first), *(CHANGES[change](draw, words) for words in first)]
    sides = [
        read(tmp_path, dedup, texts, val_fraction=0.3, test_fraction=0.3).side.reshape(2, -1)
        for dedup in ("exact", "near")
    ]
    before, after = [(one != other) & (one != LEFT_OUT) & (other != LEFT_OUT) for one, other in sides]
    assert before.sum() > 60
    assert after.sum() == 0


def test_held_out_documents_stay_and_train_and_test_only_lose_some(tmp_path: Path) -> None:
    draw = random.Random(0)
    first = [text(draw, 60) for _ in range(300)]
    texts = [*(" ".join(words) for words in first), *(replaced(draw, words) for words in first)]
    exact, near = (read(tmp_path, dedup, texts, val_fraction=0.2, test_fraction=0.2) for dedup in ("exact", "near"))
    gone = near.side == LEFT_OUT
    assert (near.side[~gone] == exact.side[~gone]).all()
    assert not (exact.side[gone] == VAL).any()
    assert near.near_duplicates == gone.sum() == (exact.side[gone] == TEST).sum() + (exact.side[gone] == TRAIN).sum()
    assert exact.near_duplicates == 0
    # A document goes only where its partner is on a side that comes before its own.
    rank = np.array([2, 0, 1])[exact.side]
    assert (gone == (np.roll(rank, 300) < rank)).all()


def test_a_test_document_that_nearly_repeats_one_of_validation_is_left_out(tmp_path: Path) -> None:
    words = text(random.Random(0), 50)
    one, two = " ".join(words), " ".join([*words[:-1], "other"])
    assert marked(tmp_path, [one], [two, "else entirely"], []) == [[False], [True, False], []]
    assert marked(tmp_path, ["else entirely"], [one], [two]) == [[False], [False], [True]]


def test_what_repeats_a_left_out_document_of_test_goes_by_validation_alone(tmp_path: Path) -> None:
    """A chain of small changes: the last is far from the first, and the one between them is on no side."""
    words = text(random.Random(1), 40)
    second = [*words[:30], *text(random.Random(2), 10)]
    third = [*text(random.Random(3), 10), *second[10:]]
    assert marked(tmp_path, [" ".join(words)], [" ".join(second)], [" ".join(third)]) == [[False], [True], [False]]


def test_near_copies_inside_one_side_are_kept(tmp_path: Path) -> None:
    draw = random.Random(0)
    alike = [[replaced(draw, words) for _ in range(5)] for words in (text(draw, 80) for _ in range(3))]
    assert marked(tmp_path, *alike) == [[False] * 5] * 3


def test_documents_on_the_same_topic_are_kept(tmp_path: Path) -> None:
    bread = [
        "Mix the flour with water and a little salt, cover the bowl and let the dough rest over night in a cool place.",
        "A dough of flour, water and salt rises slowly when it is cool, so many bakers leave it to rest over night.",
        "Salt slows the yeast down. Bakers therefore add it to the dough late, once flour and water have rested.",
        "Let the bread cool before you cut it; while it is warm the crumb is wet, and the knife tears the dough.",
    ]
    assert marked(tmp_path, bread[:1], bread[1:2], bread[2:]) == [[False], [False], [False, False]]


@pytest.mark.parametrize(
    "language", ["日本語の文書を学習する前に、同じ文を取り除くことが大切です。", "Ελληνικά κείμενα για την εκπαίδευση"]
)
def test_other_scripts_are_compared_by_characters_too(tmp_path: Path, language: str) -> None:
    assert marked(tmp_path, [language], [], [language + "!", language[::-1]]) == [[False], [], [True, False]]


def test_very_short_texts_are_alike_only_if_they_are_the_same_but_for_case_and_space(tmp_path: Path) -> None:
    assert marked(tmp_path, ["a", "Yes", "no\nno"], [], ["b", "yes", "No no", "A.", "."]) == [
        [False] * 3,
        [],
        [False, True, True, False, False],
    ]


def test_a_side_without_documents_changes_nothing(tmp_path: Path) -> None:
    assert marked(tmp_path, [], [], ["a text", "a text."]) == [[], [], [False, False]]
    assert marked(tmp_path, [], ["a text"], ["A TEXT"]) == [[], [False], [True]]


def instruction(prompt: str, completion: str) -> dict[str, Any]:
    return {"prompt": prompt, "completion": completion}


def chat(*contents: str) -> dict[str, Any]:
    said = zip(("user", "assistant"), contents, strict=True)
    return {"messages": [{"role": role, "content": content} for role, content in said]}


def test_of_instructions_the_names_of_their_fields_do_not_count(tmp_path: Path) -> None:
    val, train = instruction("2+3", "5"), instruction("7-1", "6")
    assert marked(tmp_path, [val], [], [train, instruction(" 2+3", "5")], "instructions")[2] == [False, True]
    assert marked(tmp_path, [json.dumps(val)], [], [json.dumps(train)], "text")[2] == [True], "as text they are alike"
    val, train = chat("Good morning", "Hello"), chat("And now?", "Leave")
    assert marked(tmp_path, [val], [], [train, chat("good morning\n", "hello")], "instructions")[2] == [False, True]


def test_a_system_message_that_all_share_makes_nothing_alike(tmp_path: Path) -> None:
    system = {"role": "system", "content": "You are a patient assistant who answers in one short sentence. " * 3}

    def asked(question: str) -> dict[str, Any]:
        return {"messages": [system, {"role": "user", "content": question}, {"role": "assistant", "content": "Yes"}]}

    val, train = asked("Which rivers meet in Passau?"), asked("How long does an egg boil?")
    again = asked("which rivers  meet in Passau ?")
    assert marked(tmp_path, [val], [], [train, again], "instructions")[2] == [False, True]


def test_instructions_are_compared_when_they_are_read(tmp_path: Path) -> None:
    draw = random.Random(0)
    words = [text(draw, 20) for _ in range(100)]
    rows = [{"prompt": " ".join(ones), "completion": "Yes."} for ones in words]
    val = [{"prompt": " ".join(ones).upper(), "completion": "yes."} for ones in words[:7]]
    path, val_path = tiny.jsonl(tmp_path / "a.jsonl", *rows), tiny.jsonl(tmp_path / "v.jsonl", *val)
    config = DataConfig(format="instructions", path=path, val_path=val_path, test_fraction=0, dedup="near")
    splits = read_splits(config, str(tmp_path / "cache"))
    assert splits.near_duplicates == 7
    assert np.flatnonzero(splits.side == LEFT_OUT).tolist() == list(range(7))


def test_thousands_of_documents_that_are_nearly_alike_are_compared_soon(tmp_path: Path, monkeypatch: Any) -> None:
    """Of candidates that are all just too far, a few are compared and not every one."""
    from domaintune.data import deduplicating

    compared = 0
    similarity = deduplicating._similarity

    def counted(*sets: set[str]) -> float:
        nonlocal compared
        compared += 1
        return similarity(*sets)

    monkeypatch.setattr(deduplicating, "_similarity", counted)
    draw = random.Random(0)
    template = " ".join(text(draw, 40))
    texts = [f"{template} {' '.join(text(draw, 35))}" for _ in range(400)]
    found = marked(tmp_path, texts[:200], [], texts[200:])
    assert compared <= 200 * deduplicating.COMPARED
    assert compared > 200, "they are candidates"
    assert sum(found[2]) < 150, "most are too far"


SCRIPT = """
import sys
from domaintune.config.schema import DataConfig
from domaintune.data.splitting import read_splits
splits = read_splits(DataConfig(path=sys.argv[1], dedup="near", val_fraction=0.3), sys.argv[2])
print(splits.near_duplicates, splits.sha256())
"""


def test_every_process_leaves_the_same_out(tmp_path: Path) -> None:
    draw = random.Random(0)
    first = [text(draw, 20) for _ in range(200)]
    # Changed so much that some of them are near and some are not.
    changed = [" ".join([*words[:14], *text(draw, 6)]) for words in first]
    path = tiny.jsonl(tmp_path / "all.jsonl", *(" ".join(words) for words in first), *changed)
    printed = set()
    for seed in ("0", "1"):
        command = [sys.executable, "-c", SCRIPT, path, str(tmp_path / f"cache {seed}")]
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        printed.add(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    assert len(printed) == 1
    assert 20 < int(printed.pop().split()[0]) < 150


def from_a_template(number: int, words: int = 12) -> list[str]:
    """Letters of one template, of which each has a few words of its own: about half of their pieces are the same."""
    draw = random.Random(7)
    frame = " ".join(text(draw, 20))
    return [f"{frame} {' '.join(draw.choices(WORDS, k=words))}" for _ in range(number)]


def test_the_work_grows_with_the_number_of_texts_also_of_one_template(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice as many texts take at most 2.3 times the work, counted in digests that are compared."""
    nearest, compared = deduplicating._nearest, []

    def counting(candidates: Any, estimates: Any) -> Any:
        compared.append(len(candidates))
        return nearest(candidates, estimates)

    monkeypatch.setattr(deduplicating, "_nearest", counting)
    work = []
    for number in (1000, 2000):
        letters = from_a_template(number)
        held = number // 5
        marked(tmp_path / str(number), letters[:held], [], letters[held:])
        work.append(sum(compared))
        compared.clear()
    assert work[0] > 20_000, "the template makes candidates of most"
    assert work[1] <= 2.3 * work[0]


def test_a_near_duplicate_is_found_among_thousands_of_one_template(tmp_path: Path) -> None:
    letters = from_a_template(1200, words=25)
    changed = [letter.rsplit(" ", 1)[0] + " other" for letter in letters[:60]]
    (_, _, found) = marked(tmp_path, letters[:800], [], [*changed, *letters[800:]])
    assert found == [True] * 60 + [False] * 400
