"""Documents -> train / val / test, by a hash of the text: adding a document never moves another."""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from domaintune.config.schema import DataConfig
from domaintune.data import deduplicating
from domaintune.data.documents import GIVEN, SIDES, Documents, read_documents
from domaintune.data.fields import Format
from domaintune.data.finding import Found, find_sources
from domaintune.data.formats.choosing import fields_of, format_of
from domaintune.data.left_out import NAMED, LeftOutRows, explained, joined
from domaintune.errors import UsageError
from domaintune.files.cache import cached

TRAIN, VAL, TEST = range(3)  # places in SIDES
LEFT_OUT = -1
SERVED = {VAL: 2, TEST: 3, TRAIN: 4, LEFT_OUT: 5}  # when a side has its turn; sets that are given come before it


@dataclass(frozen=True)
class Splits:
    """The documents, and the side that each is on.

    Attributes:
        side: (D,) places in SIDES; -1 for what was left out.
        duplicates, near_duplicates: how many were left out as such.
        held_out: how many were left out since their group is in `val_path` or `test_path`, or since what they give is
            held out.
        left_out: rows that can't be used, by their reasons: those that are no documents, and what `leave_out` added.
        found: what was found beside the documents' files, and what a person should know about them.
    """

    documents: Documents
    side: npt.NDArray[np.int8]
    duplicates: int = 0
    near_duplicates: int = 0
    held_out: int = 0
    left_out: LeftOutRows = field(default_factory=dict)
    found: Found = field(default_factory=Found)

    def of(self, name: str) -> npt.NDArray[np.int64]:
        """The numbers of one side's documents, in the order of reading."""
        return np.flatnonzero(self.side == SIDES.index(name))

    def leave_out(self, numbers: Iterable[int], reason: str, why: str) -> "Splits":
        """The same without these documents, which a later stage can't use.

        Args:
            numbers: of the documents, in their order. Those that are on no side already count for nothing.
            why: words about the first of them.
        """
        wanted = [number for number in numbers if self.side[number] != LEFT_OUT]
        if not wanted:
            return self
        side = self.side.copy()
        side[wanted] = LEFT_OUT
        places = [self.documents.place(number) for number in wanted[:NAMED]]
        return replace(self, side=side, left_out=joined(self.left_out, reason, len(wanted), places, why))

    def sha256(self) -> str:
        """The same texts on the same sides in the same order have the same hash, whatever files they come from."""
        digest, hashes = hashlib.sha256(), self.documents.hashes
        for name in SIDES:
            chosen = hashes[self.of(name)]
            digest.update(f"{name}:{len(chosen)}:".encode() + chosen.tobytes())
        return digest.hexdigest()


def read_splits(config: DataConfig, cache: str, marks: tuple[str, ...] = ()) -> Splits:
    """Reads what the `data` group names (without a path: the embedded corpus) and splits it.

    Where `val_path` or `test_path` is given, that part of `path` is trained on. Of copies one is kept: on the
    validation side before the test side before the training side, so what is learnt from is never what is measured
    on. What is given in rows of labels, entities or pairs of `path` is on one side too, whatever group they are of; two
    sets that are given are compared by whole rows alone. Imports nothing heavy.

    Args:
        marks: see `Fields`.

    Raises:
        UsageError: naming the file and place.
    """
    found = find_sources(config, cache)
    documents = read_documents(found.sources, fields_of(config, marks), cache)
    side = sides(documents, config)
    duplicates = near = 0
    if config.group_column is not None:
        side[_of_held_out_groups(documents)] = LEFT_OUT
    held_out = int((side == LEFT_OUT).sum())
    if config.dedup != "none":
        copies = copied(documents.hashes, served(documents.given_sides, side))
        side[copies], duplicates = LEFT_OUT, int(copies.sum())
    before = int((side == LEFT_OUT).sum())
    if format_of(config.format).is_given and (config.group_column is not None or config.dedup != "none"):
        # What is given in a row, known from a held-out row, would be cheating.
        side[_given_elsewhere(documents, side)] = LEFT_OUT
    held_out += int((side == LEFT_OUT).sum()) - before
    if config.dedup == "near":
        similar = _near_duplicates(documents, side, format_of(config.format), cache)
        side[similar], near = LEFT_OUT, int(similar.sum())
    found.notes += documents.source_notes()
    return Splits(documents, side, duplicates, near, held_out, documents.left_out(), found)


def sides(documents: Documents, config: DataConfig) -> npt.NDArray[np.int8]:
    """(D,) the side of each document: that of its source, else by its place in [0, 1).

    Texts (or groups) at [0, val_fraction) are val, those at [val_fraction, val_fraction + test_fraction) test, the
    rest train. Where documents of a side were given, those that would have been drawn for it are train: no other moves.
    """
    given, place = documents.given_sides, positions(documents.group_hashes, config.split_seed)
    held_out = np.where(place < config.val_fraction, VAL, TEST)
    drawn = np.where(place < config.val_fraction + config.test_fraction, held_out, TRAIN)
    drawn[np.isin(drawn, given)] = TRAIN
    return np.where(given >= 0, given, drawn).astype(np.int8)


def _of_held_out_groups(documents: Documents) -> npt.NDArray[np.bool_]:
    """(D,) True where a document of `path` is in a group that a given validation or test set has too."""
    given, groups = documents.given_sides, documents.group_hashes
    return (given < 0) & np.isin(groups, groups[(given == VAL) | (given == TEST)])


def _given_elsewhere(documents: Documents, side: npt.NDArray[np.int8]) -> npt.NDArray[np.bool_]:
    """(D,) True where a document of `path` gives what `val_path` or `test_path` gives, or a side that is served
    before its own.

    Groups would not be kept apart better by joining those that share what is given: a few common texts would join all.
    """
    rank = served(documents.given_sides, side)
    _, same = np.unique(documents.given_hashes, return_inverse=True)
    earliest = np.full(len(documents), rank.max(initial=0))
    np.minimum.at(earliest, same, rank)
    return (documents.given_sides < 0) & (side != LEFT_OUT) & (rank > earliest[same])


def _fractions(documents: Documents, config: DataConfig) -> tuple[float, float]:
    """What share of the documents without a given side is drawn for validation and for test."""
    given = documents.given_sides
    return (
        0.0 if (given == VAL).any() else config.val_fraction,
        0.0 if (given == TEST).any() else config.test_fraction,
    )


def positions(hashes: npt.NDArray[np.uint64], seed: int) -> npt.NDArray[np.float64]:
    """(D,) where each hash falls in [0, 1): a function of it and the seed alone.

    The finalizer of SplitMix64 (Steele et al., "Fast Splittable Pseudorandom Number Generators", 2014).
    """
    with np.errstate(over="ignore"):
        mixed = hashes + np.uint64(0x9E3779B97F4A7C15) * np.uint64(seed + 1)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def served(given: npt.NDArray[np.int8], side: npt.NDArray[np.int8]) -> npt.NDArray[np.int64]:
    """(D,) when a document is served with what others have too: given sets before sides that are drawn.

    Args:
        given: (D,) the side that was given for a document's source, -1 where there was none.
        side: (D,) its side.

    Returns:
        0 validation set that was given, 1 test set that was given, 2 validation, 3 test, 4 training, 5 left out.
    """
    rank = np.select([side == name for name in SERVED], list(SERVED.values()))
    return np.where(np.isin(given, (VAL, TEST)) & (side != LEFT_OUT), rank - 2, rank)


def copied(hashes: npt.NDArray[np.uint64], rank: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """(D,) True for every copy of a text but the first of those of the lowest rank. What was left out is no copy.

    Args:
        hashes: (D, 2) of the texts.
        rank: (D,) as `served` has it.
    """
    places = np.flatnonzero(rank < SERVED[LEFT_OUT])
    order = places[np.lexsort((places, rank[places], hashes[places, 1], hashes[places, 0]))]
    ordered = hashes[order]
    copies = np.zeros(len(rank), dtype=bool)
    copies[order[1:]] = (ordered[1:] == ordered[:-1]).all(axis=1)
    return copies


def _near_duplicates(
    documents: Documents, side: npt.NDArray[np.int8], format: Format, cache: str
) -> npt.NDArray[np.bool_]:
    rank = served(documents.given_sides, side)

    def make(folder: Path) -> None:
        masks = [rank < 2, rank == 2, rank == 3, rank == 4]  # of sets that are given nothing is left out
        found = deduplicating.near_duplicates(documents, masks, format)
        np.save(folder / "near.npy", found)

    key = {
        "format": deduplicating.FORMAT,
        "documents": documents.folder.name,
        "sides": hashlib.sha256(side.tobytes()).hexdigest(),
    }
    return np.load(cached(cache, "near_duplicates", key, make) / "near.npy")


def check_sides(splits: Splits, config: DataConfig) -> None:
    """Raises UsageError where there is nothing to train or to validate on, or no text in a path that was given."""
    given = splits.documents.given_sides
    for name, path, side in (("val", config.val_path, VAL), ("test", config.test_path, TEST)):
        if path and not (given == side).any():
            raise UsageError(f"data.{name}_path={path}: {_nothing(splits, side)}")
    numbers = {name: len(splits.of(name)) for name in SIDES}
    if numbers["train"] and numbers["val"]:
        return
    lacking = "validate" if numbers["train"] else "train"
    drawn = (given < 0) & (splits.side != LEFT_OUT)
    if not (given < 0).any():
        raise UsageError(f"data.path={config.path}: {_nothing(splits, GIVEN[None])}")
    if not drawn.any():
        raise UsageError(f"nothing to {lacking} on: every document of data.path is in data.val_path or data.test_path")
    val, test = _fractions(splits.documents, config)
    place = positions(splits.documents.group_hashes[drawn], config.split_seed)
    groups = f" in {len(np.unique(place))} of data.group_column={config.group_column}" if config.group_column else ""
    message = (
        f"the corpus is too small to split: of {len(place)} document{'s' * (len(place) != 1)}{groups} none is left to "
        f"{lacking} on at data.val_fraction={val:g} and data.test_fraction={test:g}"
        + f" (left out are {explained(splits.left_out)})"
        * bool(splits.left_out)
    )
    if splits.near_duplicates:
        raise UsageError(f"{message}: {splits.near_duplicates:,} nearly repeat others; data.dedup=exact keeps them")
    enough = math.ceil(place.min() * 100 + 1e-9) / 100
    if not (given == VAL).any() and enough <= 0.9 and (place >= enough + test).any():
        message += f". With data.val_fraction={enough:.2f} there is one to train on and one to validate on"
    cut = fields_of(config).unit  # of text files
    finer = {"file": "data.unit=paragraph or line", "paragraph": "data.unit=line"}.get(cut)
    raise UsageError(
        f"{message}. {f'Or cut it finer ({finer})' if finer else 'Take more text'}, or give a validation set "
        f"(data.val_path=...)"
    )


def _nothing(splits: Splits, given: int) -> str:
    """Why the sources for a side have no document."""
    left_out = splits.documents.left_out(given)
    return f"no text in it that can be learnt from; left out are {explained(left_out)}" if left_out else "no text in it"
