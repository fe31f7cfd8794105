"""What the tests of everyday inputs share: writing files as people keep them, and reading what a run left."""

import itertools
import json
import random
from pathlib import Path
from typing import Any

# Short runs on small texts: two steps, two validation batches.
SHORT = (
    "trainer=cpu trainer.max_epochs=-1 trainer.max_steps=2 trainer.limit_val_batches=2 data.block_size=64 "
    "data.batch_size=8 '~callbacks.samples'"
)
PLACES = "harbour orchard library station market lighthouse bakery museum garden workshop cellar bridge".split()
PEOPLE = "keeper baker pilot gardener clerk captain printer teacher painter miller".split()
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


def result_of(home: Path, name: str) -> dict[str, Any]:
    """result.json of a run by its name."""
    found = json.loads((home / "logs" / "runs" / name / "result.json").read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def config_of(home: Path, name: str) -> dict[str, Any]:
    """config.yaml of a run by its name."""
    import yaml

    found = yaml.safe_load((home / "logs" / "runs" / name / "config.yaml").read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def scalars_of(home: Path, name: str) -> dict[str, list[tuple[int, float]]]:
    """{tag: (step, value) of each point} of a run's TensorBoard files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(home / "logs" / "runs" / name / "tensorboard")).Reload()
    return {tag: [(each.step, each.value) for each in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def tokens_of(cache: Path) -> list[list[int]]:
    """The token ids of each document, from a cache folder that only one run has used."""
    import numpy as np

    (folder,) = {path.parent for path in cache.glob("tokens/*/ids.bin")}
    ids, starts = np.fromfile(folder / "ids.bin", dtype=np.int32), np.load(folder / "starts.npy")
    return [ids[first:end].tolist() for first, end in itertools.pairwise(starts)]
