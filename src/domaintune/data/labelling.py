"""Which labels or tags the rows have, how often on each side, and what of that a person should know. Without torch."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from domaintune.data.classes import (
    as_many_as,
    class_names,
    in_order,
    missing_words,
    number_of,
    on_a_scale,
    parted_by,
    spelt_alike,
    told_apart,
)
from domaintune.data.documents import SIDES
from domaintune.data.splitting import LEFT_OUT, Splits
from domaintune.errors import UsageError

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
        spellings: {name: those that rows have it in} where there are several.
        texts: how many documents have labels or tags.
        mixed: (documents with a single label, place of the first with a list) where some have the one and some the
            other: a single label is a list of one.
    """

    names: tuple[str, ...]
    several: bool
    of: npt.NDArray[Any]
    words: npt.NDArray[np.int64]
    counts: dict[str, dict[str, int]]
    contradicting: int = 0
    spellings: dict[str, list[str]] = field(default_factory=dict)
    texts: int = 0
    mixed: tuple[int, str] | None = None

    def counts_of(self, splits: Splits) -> dict[str, dict[str, int]]:
        """`counts` of these splits, of which more was left out."""
        return {side: self._counts(splits.of(side)) for side in SIDES}

    def _counts(self, documents: npt.NDArray[np.int64]) -> dict[str, int]:
        if len(self.of) == self.words[-1]:
            found = self.of[np.isin(np.repeat(np.arange(len(self.words) - 1), np.diff(self.words)), documents)]
        else:
            found = self.of[documents]
        numbers = found.sum(0) if found.ndim > 1 else np.bincount(found, minlength=len(self.names))
        return dict(zip(self.names, numbers.tolist(), strict=True))


def read_labels(
    splits: Splits, format: str, known: tuple[list[str], bool] | None = None, strict: bool = False
) -> Labels:
    """The labels of documents of `labels`, or the tags of `entities`.

    Args:
        known: the names of a trained head and whether it gives several; taken where they hold all that is found here.
        strict: refuse lists of labels beside single ones.

    Raises:
        UsageError: some texts have one label and some a list of them.
    """
    found, lists, alike = _found(splits, format)
    several = any(lists.values())
    mixed = _mixed(splits, lists) if several else None
    if mixed is not None and strict:
        first = next(number for number, is_list in lists.items() if not is_list)
        places = mixed[1], splits.documents.place(first)
        raise UsageError(f"some texts have a list of labels ({places[0]}) and some a single one ({places[1]})")
    spellings = _rename(found, known, several) if format == "labels" else {}
    counts: dict[str, Counter[str]] = {side: Counter() for side in SIDES}
    for number, names in found.items():
        counts[SIDES[splits.side[number]]].update(names)
    every = {name for counter in counts.values() for name in counter}
    if known is not None and every <= set(known[0]) and several == known[1]:
        order = known[0]
    else:
        order = sorted(every, key=lambda name: (format == "entities" and name != OUTSIDE, in_order(name)))
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
        contradicting=sum(len(its) for its in alike if len({tuple(found[number]) for number in its}) > 1),
        spellings=spellings,
        texts=len(found),
        mixed=mixed,
    )


def _found(splits: Splits, format: str) -> tuple[dict[int, list[str]], dict[int, bool], Collection[list[int]]]:
    """The names of each document that was not left out, whether they are a list, and the documents of each text.

    Of entities the last two are not looked for.
    """
    found: dict[int, list[str]] = {}
    lists: dict[int, bool] = {}
    alike: dict[bytes, list[int]] = {}
    for number, record in _kept(splits):
        if format == "entities":
            found[number] = record["tags"]
            continue
        lists[number] = "labels" in record
        found[number] = record["labels"] if lists[number] else [record["label"]]
        alike.setdefault(blake2b(record["text"].encode(), digest_size=16).digest(), []).append(number)
    return found, lists, alike.values()


def _mixed(splits: Splits, lists: dict[int, bool]) -> tuple[int, str] | None:
    singles = sum(not is_list for is_list in lists.values())
    first = next(number for number, is_list in lists.items() if is_list)
    return (singles, splits.documents.place(first)) if singles else None


def _rename(found: dict[int, list[str]], known: tuple[list[str], bool] | None, several: bool) -> dict[str, list[str]]:
    """Puts the names of classes in place of what rows have; returns the spellings of those that have several."""
    every = {name for names in found.values() for name in names}
    heads = known[0] if known is not None and known[1] == several else []
    names = class_names(every, heads)
    if not {*names.values()} <= {*heads}:
        names = class_names(every)  # a new head, with names of its own
    for number, its in found.items():
        found[number] = sorted({names[name] for name in its})
    spellings: dict[str, list[str]] = {}
    for spelling, name in sorted(names.items()):
        spellings.setdefault(name, []).append(spelling)
    return {name: its for name, its in spellings.items() if len(its) > 1}


def _kept(splits: Splits) -> Iterator[tuple[int, Any]]:
    for first, end in splits.documents.batches(BATCH_BYTES):
        for number, record in enumerate(splits.documents.records(first, end), first):
            if splits.side[number] != LEFT_OUT:
                yield number, record


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
    what = "words with tag" if format == "entities" else "texts with label"
    yield from _about_names(labels, format)
    yield from _too_few(labels, what)
    if labels.contradicting:
        yield f"{labels.contradicting:,} texts stand there with another label too: at most one of them can be right"
    known = {name: count for name, count in labels.counts["train"].items() if count}
    if format == "labels" and known and not weighted:
        most, least = max(known, key=known.__getitem__), min(known, key=known.__getitem__)
        if known[most] >= UNBALANCED * known[least]:
            yield (
                f"the classes are unbalanced: in training {known[most]:,} {what} {most} and {known[least]:,} {least}; "
                f"task.class_weights=balanced gives each class the same weight"
            )


def _too_few(labels: Labels, what: str) -> Iterator[str]:
    train = labels.counts["train"]
    for side in ("val", "test"):
        if unknown := {name: count for name, count in labels.counts[side].items() if count and not train[name]}:
            yield f"{_listed(unknown)} on the {side} side and none in training: they can't be learnt"
    if single := [name for name, count in train.items() if count == 1]:
        yield f"training has one of the {what} {_first(single)}: too few to learn from"


def _about_names(labels: Labels, format: str) -> Iterator[str]:
    """Names that look as if something else were meant."""
    counts = {name: sum(labels.counts[side][name] for side in SIDES) for name in labels.names}
    there = {name: count for name, count in counts.items() if count}
    what = "words" if format == "entities" else "texts"
    for group in spelt_alike(there)[:NAMED]:
        alike = ", ".join(f"{told_apart(name, group)} ({there[name]:,} {what})" for name in group)
        yield f"{alike} differ in their spelling alone and are classes of their own: write them alike if they are one"
    if format == "labels":
        yield from _about_labels(labels, there)


def _about_labels(labels: Labels, there: dict[str, int]) -> Iterator[str]:
    if labels.mixed is not None:
        singles, place = labels.mixed
        yield (
            f"{singles:,} texts have a single label and {labels.texts - singles:,} a list ({place}): a single one is "
            f"taken as a list of one, and the model learns to give a text several labels"
        )
    for name, spellings in list(labels.spellings.items())[:NAMED]:
        yield f"{' and '.join(spellings)} are the same value: one class, {name}"
    for name in missing_words(there):
        yield (
            f"{name}: {there[name]:,} texts: if that means no label, leave the cell empty (null), and they are left "
            f"out; else it is a class like the others"
        )
    if on_a_scale(there):
        least, most = (choose(there, key=lambda name: number_of(name) or 0) for choose in (min, max))
        yield (
            f"the labels are {len(there):,} different numbers, {least} to {most}: each is learnt as a class of its "
            f"own, none as larger than another (there is no regression). Round ratings to a few classes; if these are "
            f"no labels, set data.columns.label"
        )
    elif as_many_as(there, labels.texts):
        yield f"{len(there):,} classes for {labels.texts:,} texts: is data.columns.label right?"
    if found := parted_by(there):
        name, sign = found
        yield (
            f"{name} ({there[name]:,} texts) looks like several labels in one string, as parts of it are labels too: "
            f'data.label_separator="{sign}" parts them'
        )


def _first(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:NAMED]) + (f" and {len(listed) - NAMED} more" if len(listed) > NAMED else "")


def _listed(counts: dict[str, int]) -> str:
    return _first(f"{name}: {count:,}" for name, count in counts.items())
