"""Documents -> train / val / test, by a hash of the text: adding a document never moves another."""

import hashlib
import math
from dataclasses import dataclass
from functools import partial

from domaintune.config import DataConfig, UsageError
from domaintune.data.embedded import embedded_corpus
from domaintune.data.reading import Document, read_documents

FRACTION_STEPS = 2**64
SIDES = ("train", "val", "test")


@dataclass(frozen=True)
class Splits:
    """The three sides. `duplicates` counts the exact copies that were left out."""

    train: list[Document]
    val: list[Document]
    test: list[Document]
    duplicates: int


def read_splits(config: DataConfig, cache: str) -> Splits:
    """Reads what the `data` group names (without a path: the embedded corpus) and splits it.

    Documents of `val_path` and `test_path` take the place of that part of `path`; a copy of one of them in `path` is
    left out. Imports nothing heavy.

    Raises:
        UsageError: naming the file and place, or why the corpus can't be split.
    """
    path = str(embedded_corpus(cache)) if config.path is None else config.path
    read = partial(read_documents, unit=config.unit, text_column=config.text_column)
    val = read(config.val_path, setting="data.val_path") if config.val_path else []
    test = read(config.test_path, setting="data.test_path") if config.test_path else []
    found = read(path)
    # The first of each text is kept: in val before test, and in both before what `path` has.
    given_val = unique(val)
    given_test = unique([*given_val, *test])[len(given_val) :]
    left = unique([*given_val, *given_test, *found])[len(given_val) + len(given_test) :]
    if not left:
        raise UsageError(f"data.path={path}: every document is in data.val_path or data.test_path too")
    splits = split(
        left,
        0.0 if config.val_path else config.val_fraction,
        0.0 if config.test_path else config.test_fraction,
        config.split_seed,
    )
    kept = len(given_val) + len(given_test) + len(left)
    return Splits(
        splits.train,
        given_val or splits.val,
        given_test or splits.test,
        len(val) + len(test) + len(found) - kept,
    )


def unique(documents: list[Document]) -> list[Document]:
    """The first of each text, in order."""
    kept: dict[str, Document] = {}
    for document in documents:
        kept.setdefault(document.text, document)
    return list(kept.values())


def position(text: str, seed: int) -> float:
    """Where a text falls in [0, 1): a function of the text and the seed alone."""
    digest = hashlib.blake2b(text.encode(), digest_size=8, salt=seed.to_bytes(16, "big", signed=True))
    return int.from_bytes(digest.digest(), "big") / FRACTION_STEPS


def split(documents: list[Document], val_fraction: float, test_fraction: float, seed: int) -> Splits:
    """Puts the texts at [0, val) into val, those at [val, val + test) into test, the rest into train.

    Copies of a text that came before are left out, since one in train and one in val would flatter the result.

    Raises:
        UsageError: train or val would be empty.
    """
    kept = unique(documents)
    places = [position(document.text, seed) for document in kept]
    end = val_fraction + test_fraction
    val = [document for document, place in zip(kept, places, strict=True) if place < val_fraction]
    test = [document for document, place in zip(kept, places, strict=True) if val_fraction <= place < end]
    train = [document for document, place in zip(kept, places, strict=True) if place >= end]
    if not train or (val_fraction > 0 and not val):
        raise UsageError(_too_small(places, bool(train), val_fraction, test_fraction))
    return Splits(train, val, test, len(documents) - len(kept))


def _too_small(places: list[float], trains: bool, val_fraction: float, test_fraction: float) -> str:
    number, enough = len(places), math.ceil(min(places) * 100 + 1e-9) / 100
    message = (
        f"the corpus is too small to split: of {number} document{'s' * (number != 1)} none is left to "
        f"{'validate' if trains else 'train'} on at data.val_fraction={val_fraction:g}"
    )
    if enough <= 0.9 and any(place >= enough + test_fraction for place in places):
        message += f". With data.val_fraction={enough:.2f} there is one on each side"
    return message + ". Or cut it finer (data.unit=paragraph or line), or give a validation set (data.val_path=...)"


def data_hash(splits: Splits) -> str:
    """SHA-256 over the documents of all sides, in their order: the same text, split the same way, has the same hash."""
    digest = hashlib.sha256()
    for side in SIDES:
        for document in getattr(splits, side):
            text = document.text.encode()
            digest.update(f"{side}:{len(text)}:".encode() + text)
    return digest.hexdigest()
