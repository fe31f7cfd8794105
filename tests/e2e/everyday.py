"""What the tests of everyday inputs share: writing files as people keep them, and reading what a run left."""

import itertools
import json
import random
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

# Settings of short runs on small texts: two validation batches, and so many steps.
SETTINGS = (
    "trainer=cpu trainer.max_epochs=-1 trainer.limit_val_batches=2 data.block_size=64 data.batch_size=8 "
    "'~callbacks.samples'"
)
SHORT = f"{SETTINGS} trainer.max_steps=2"
Shell = Callable[..., subprocess.CompletedProcess[str]]
PLACES = "harbour orchard library station market lighthouse bakery museum garden workshop cellar bridge".split()
PEOPLE = "keeper baker pilot gardener clerk captain printer teacher painter miller".split()
COLOURS = {"lemon": "Yellow.", "coal": "Black.", "snow": "White.", "grass": "Green.", "brick": "Red.", "sky": "Blue."}
GOOD, BAD = "bright kind lovely patient charming clever".split(), "dull cold noisy careless tedious clumsy".split()


def sentence(number: int) -> str:
    draw = random.Random(number)
    return (
        f"The {draw.choice(PEOPLE)} of the {draw.choice(PLACES)} counted {number} lamps at the {draw.choice(PLACES)}."
    )


def paragraph(number: int, sentences: int = 3) -> str:
    return f"Entry {number}. " + " ".join(sentence(10 * number + each) for each in range(sentences))


def notes(number: int = 60) -> str:
    """So many paragraphs, parted by blank lines."""
    return "\n\n".join(paragraph(each) for each in range(number)) + "\n"


def review(number: int) -> str:
    """A text whose words say whether its number is even (good) or odd (bad)."""
    draw = random.Random(number)
    words = draw.sample(BAD if number % 2 else GOOD, 2)
    return f"Visit {number}: a {words[0]} and {words[1]} evening at the {draw.choice(PLACES)}."


def write(file: Path, text: str | bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def write_jsonl(file: Path, rows: list[Any]) -> Path:
    return write(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_csv(file: Path, header: str, rows: list[tuple[Any, ...]]) -> Path:
    """Quoted where a cell needs it, as spreadsheets do."""

    def cell(value: object) -> str:
        text = str(value)
        return '"' + text.replace('"', '""') + '"' if set(text) & set(',"\n') else text

    return write(file, header + "\n" + "".join(",".join(map(cell, row)) + "\n" for row in rows))


def write_labels(file: Path, good: str = "good", bad: str = "bad", number: int = 160) -> Path:
    """A CSV of reviews, half of them with the one label and half with the other."""
    return write_csv(file, "text,label", [(review(each), bad if each % 2 else good) for each in range(number)])


def question(number: int) -> list[dict[str, str]]:
    """Messages of a user who asks for a colour and of the assistant's answer."""
    thing = list(COLOURS)[number % len(COLOURS)]
    return [
        {"role": "user", "content": f"Which colour has {thing}, case {number}?"},
        {"role": "assistant", "content": COLOURS[thing]},
    ]


def copied(folder: Path, place: Path, **files: Any) -> Path:
    """A checkpoint's copy with other JSON files: `generation_config={...}` is generation_config.json."""
    shutil.copytree(folder, place)
    for name, content in files.items():
        write(place / f"{name}.json", json.dumps(content))
    return place


def works(shell: Shell, line: str) -> str:
    """Runs a line that is to work, and returns everything it printed."""
    done = shell(line)
    assert done.returncode == 0, f"{line}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    return done.stdout + done.stderr


def is_refused(shell: Shell, line: str) -> str:
    """Runs a line that is to be refused, and returns what was wrong."""
    done = shell(line)
    assert done.returncode == 2, f"{line}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    assert "Traceback" not in done.stderr
    return done.stderr


def figure(printed: str, name: str) -> float:
    """A row's figure of the table that evaluate.py prints."""
    found = re.search(rf"^\W*{re.escape(name)}\W+([\d.,]+)", printed, re.MULTILINE)
    assert found, printed
    return float(found[1].replace(",", ""))


def classes_of(home: Path, name: str, side: str = "train") -> set[str]:
    """The labels or tags that a side of a run has."""
    return {label for label, count in result_of(home, name)["data"][side]["classes"].items() if count}


def documents_of(home: Path, name: str) -> int:
    """How many documents a run trained on, validated with or kept for its test."""
    data = result_of(home, name)["data"]
    return sum(data[side]["documents"] for side in ("train", "val", "test"))


def left_out(home: Path, name: str) -> dict[str, int]:
    """How many rows a run left out, by reason."""
    return {reason: each["rows"] for reason, each in result_of(home, name)["data"]["left_out"].items()}


def result_in(folder: Path) -> dict[str, Any]:
    """result.json of a run or of a sweep's trial."""
    found = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def config_in(folder: Path) -> dict[str, Any]:
    """config.yaml of a run or of a sweep's trial."""
    found = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def result_of(home: Path, name: str) -> dict[str, Any]:
    """result.json of a run by its name."""
    return result_in(home / "logs" / "runs" / name)


def config_of(home: Path, name: str) -> dict[str, Any]:
    """config.yaml of a run by its name."""
    return config_in(home / "logs" / "runs" / name)


def trials_of(home: Path, sweep: str) -> list[Path]:
    """The folders of a sweep's finished trials."""
    files = sorted((home / "logs" / "sweeps" / sweep).glob("*/result.json"))
    return [file.parent for file in files if result_in(file.parent)["status"] == "finished"]


def scalars_of(home: Path, name: str) -> dict[str, list[tuple[int, float]]]:
    """{tag: (step, value) of each point} of a run's TensorBoard files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(home / "logs" / "runs" / name)).Reload()
    return {tag: [(each.step, each.value) for each in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def tokens_of(cache: Path) -> list[list[int]]:
    """The token ids of each document, from a cache folder that only one run has used."""
    import numpy as np

    (folder,) = {path.parent for path in cache.glob("tokens/*/ids.bin")}
    ids, starts = np.fromfile(folder / "ids.bin", dtype=np.int32), np.load(folder / "starts.npy")
    return [ids[first:end].tolist() for first, end in itertools.pairwise(starts)]
