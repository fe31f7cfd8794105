"""Documents -> train / val / test, by a hash of the text: adding a document never moves another."""

import hashlib
from dataclasses import dataclass

from domaintune.config import DataConfig, UsageError
from domaintune.data.embedded import embedded_corpus
from domaintune.data.reading import Document, read_documents

FRACTION_STEPS = 2**64


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
    path = config.path or str(embedded_corpus(cache))
    given = {
        side: unique(read_documents(place, config.unit, config.text_column))
        for side, place in (("val", config.val_path), ("test", config.test_path))
        if place
    }
    taken = {document.text for documents in given.values() for document in documents}
    documents = read_documents(path, config.unit, config.text_column)
    left = [document for document in documents if document.text not in taken]
    if not left:
        raise UsageError(f"data.path={path}: every document is in data.val_path or data.test_path too")
    fractions = [
        0.0 if side in given else share
        for side, share in (("val", config.val_fraction), ("test", config.test_fraction))
    ]
    splits = split(left, fractions[0], fractions[1], config.split_seed)
    return Splits(
        splits.train,
        given.get("val", splits.val),
        given.get("test", splits.test),
        splits.duplicates + len(documents) - len(left),
    )


def unique(documents: list[Document]) -> list[Document]:
    """The first of each text, in order."""
    return list({document.text: document for document in reversed(documents)}.values())[::-1]


def position(text: str, seed: int) -> float:
    """Where a text falls in [0, 1): a function of the text and the seed alone."""
    digest = hashlib.blake2b(
        text.encode("utf-8", "surrogatepass"), digest_size=8, salt=seed.to_bytes(16, "big", signed=True)
    )
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
        raise UsageError(_too_small(len(kept), "validate" if train else "train", places, val_fraction))
    return Splits(train, val, test, len(documents) - len(kept))


def _too_small(documents: int, purpose: str, places: list[float], val_fraction: float) -> str:
    message = (
        f"the corpus is too small to split: of {documents} document{'s' * (documents != 1)} none is left to {purpose} "
        f"on at data.val_fraction={val_fraction:g}"
    )
    if documents > 1 and purpose == "validate":
        message += f". From data.val_fraction={min(places) + 0.005:.2f} on there is one"
    return message + ". Or cut it finer (data.unit=paragraph or line), or give a validation set (data.val_path=...)"
