"""Which labels or tags the rows have, how often on each side, and what of that a person should know. Without torch."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from domaintune.config import UsageError
from domaintune.data.documents import SIDES
from domaintune.data.rows import given
from domaintune.data.splitting import LEFT_OUT, Splits

BATCH_BYTES = 2_000_000
OUTSIDE = "O"  # the tag of a word in no entity
UNBALANCED = 10  # times as many examples of one class as of another
NAMED = 5  # labels that a message names


@dataclass(frozen=True)
class Labels:
    """What the rows of all sides are labelled with.

    Attributes:
        names: of the classes (or tags), in the order of the model's outputs.
        several: whether a text may have several labels, or none.
        of: of texts (D,) the place of each document's label in `names`, or (D, K) whether it has a label, -1 and False
            for documents that were left out; of tagged words (N,) the place of each word's tag.
        words: (D + 1,) document d has the tags of[words[d]] to of[words[d + 1]], none where it was left out.
        counts: {side: {name: number of documents or words}}.
        contradicting: how many documents have the text of another with other labels.
    """

    names: tuple[str, ...]
    several: bool
    of: npt.NDArray[Any]
    words: npt.NDArray[np.int64]
    counts: dict[str, dict[str, int]]
    contradicting: int = 0

    def counted_anew(self, splits: Splits) -> "Labels":
        """The same with the counts of these splits, of which more was left out."""
        return replace(self, counts={side: self._counts(splits.of(side)) for side in SIDES})

    def _counts(self, documents: npt.NDArray[np.int64]) -> dict[str, int]:
        if len(self.of) == self.words[-1]:
            found = self.of[np.isin(np.repeat(np.arange(len(self.words) - 1), np.diff(self.words)), documents)]
        else:
            found = self.of[documents]
        numbers = found.sum(0) if found.ndim > 1 else np.bincount(found, minlength=len(self.names))
        return dict(zip(self.names, numbers.tolist(), strict=True))


def read_labels(splits: Splits, format: str, known: tuple[list[str], bool] | None = None) -> Labels:
    """The labels of documents of `labels`, or the tags of `entities`.

    Args:
        known: the names of a trained head and whether it gives several; taken where they hold all that is found here.

    Raises:
        UsageError: some texts have one label and some a list of them.
    """
    found, several, contradicting = _found(splits, format)
    counts: dict[str, Counter[str]] = {side: Counter() for side in SIDES}
    for number, names in found.items():
        counts[SIDES[splits.side[number]]].update(names)
    every = {name for counter in counts.values() for name in counter}
    if known is not None and every <= set(known[0]) and several == known[1]:
        order = known[0]
    else:
        order = sorted(every, key=lambda name: (format == "entities" and name != OUTSIDE, _in_order(name)))
    place = {name: number for number, name in enumerate(order)}
    words = np.zeros(len(splits.documents) + 1, dtype=np.int64)
    if format == "entities":
        of = np.array([place[tag] for number in sorted(found) for tag in found[number]], dtype=np.int64)
        words[[number + 1 for number in found]] = [len(tags) for tags in found.values()]
    else:
        of = _array(found, place, several, len(splits.documents))
    return Labels(
        names=tuple(order),
        several=several,
        of=of,
        words=words.cumsum(),
        counts={side: {name: counts[side][name] for name in order} for side in SIDES},
        contradicting=contradicting,
    )


def _found(splits: Splits, format: str) -> tuple[dict[int, list[str]], bool, int]:
    """Names of each document that was not left out, whether they are lists, and how many contradict another."""
    found: dict[int, list[str]] = {}
    lists: dict[bool, int] = {}  # whether labels are a list -> the first document where it is so
    seen: dict[bytes, list[tuple[str, ...]]] = {}
    for number, text in _kept(splits):
        row = json.loads(text)
        if format == "entities":
            found[number] = row["tags"]
            continue
        lists.setdefault("labels" in row, number)
        found[number] = row["labels"] if "labels" in row else [row["label"]]
        seen.setdefault(blake2b(given(text).encode(), digest_size=16).digest(), []).append(tuple(found[number]))
    if len(lists) > 1:
        places = splits.documents.place(lists[True]), splits.documents.place(lists[False])
        raise UsageError(f"some texts have a list of labels ({places[0]}) and some a single one ({places[1]})")
    return found, True in lists, sum(len(labels) for labels in seen.values() if len(set(labels)) > 1)


def _kept(splits: Splits) -> Iterator[tuple[int, str]]:
    for first, end in splits.documents.batches(BATCH_BYTES):
        for number, text in enumerate(splits.documents.texts(first, end), first):
            if splits.side[number] != LEFT_OUT:
                yield number, text


def _in_order(name: str) -> tuple[bool, int, str]:
    """Numbers by their size before words."""
    number = name.removeprefix("-").isascii() and name.removeprefix("-").isdecimal()
    return not number, int(name) if number else 0, name


def _array(found: dict[int, list[str]], place: dict[str, int], several: bool, documents: int) -> npt.NDArray[Any]:
    if not several:
        labels = np.full(documents, -1, dtype=np.int64)
        for number, (name,) in found.items():
            labels[number] = place[name]
        return labels
    marks = np.zeros((documents, len(place)), dtype=bool)
    for number, names in found.items():
        marks[number, [place[name] for name in names]] = True
    return marks


def check_labels(labels: Labels, format: str) -> None:
    """Raises UsageError where there is nothing to tell apart in training."""
    train = [name for name, count in labels.counts["train"].items() if count]
    if format == "entities":
        if not set(train) - {OUTSIDE}:
            raise UsageError("no word of the training side has another tag than O: there is nothing to find")
    elif len(train) < 2 - labels.several:
        raise UsageError(f"every text of the training side has the same label ({', '.join(train) or 'none'})")


def label_warnings(labels: Labels, format: str, weighted: bool) -> Iterator[str]:
    """What may spoil a training without ending it, in words and numbers.

    Args:
        weighted: whether the loss makes up for unbalanced classes.
    """
    train = labels.counts["train"]
    what = "words with tag" if format == "entities" else "texts with label"
    for side in ("val", "test"):
        if unknown := {name: count for name, count in labels.counts[side].items() if count and not train[name]}:
            yield f"{_listed(unknown)} on the {side} side and none in training: they can't be learnt"
    known = {name: count for name, count in train.items() if count}
    if single := [name for name, count in known.items() if count == 1]:
        yield f"training has one of the {what} {_first(single)}: too few to learn from"
    if labels.contradicting:
        yield f"{labels.contradicting:,} texts stand there with another label too: at most one of them can be right"
    if format == "labels" and known and not weighted:
        most, least = max(known, key=known.__getitem__), min(known, key=known.__getitem__)
        if known[most] >= UNBALANCED * known[least]:
            yield (
                f"the classes are unbalanced: in training {known[most]:,} {what} {most} and {known[least]:,} {least}; "
                f"task.class_weights=balanced gives each class the same weight"
            )


def _first(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:NAMED]) + (f" and {len(listed) - NAMED} more" if len(listed) > NAMED else "")


def _listed(counts: dict[str, int]) -> str:
    return _first(f"{name}: {count:,}" for name, count in counts.items())
