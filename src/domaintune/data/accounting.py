"""What becomes of every token: counted by documents and by windows, and refused where the two differ."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from domaintune.data.batching import Batches
from domaintune.data.examples import ExampleDataset, cut_by_length
from domaintune.data.windows import WindowDataset


@dataclass(frozen=True)
class Account:
    """One side's documents and tokens.

    Attributes:
        tokens: of all documents, with an end-of-text token each.
        predicted_tokens: those with a label: a pass predicts each of them once.
        context_tokens: those that are seen without being predicted: the first of each document, prompts.
        dropped_tokens: those in no window. Of plain text there are none; of instructions longer than a block those
            that are too far from every answer.
        windows, batches: of an epoch.
        padding: share of the places in an epoch's batches that hold no token.
        packing_efficiency: the share that does.
        labelled: share of the tokens that are predicted.
    """

    documents: int
    tokens: int
    predicted_tokens: int
    context_tokens: int
    dropped_tokens: int
    longest_document: int
    windows: int
    batches: int
    padding: float
    packing_efficiency: float
    labelled: float


def account_of(dataset: WindowDataset, batches: Batches, width: int | None) -> Account:
    """The account of an epoch of these batches.

    Args:
        width: tokens of each row; None where a batch is as wide as its longest row.

    Raises:
        RuntimeError: a token is lost, or would be seen twice.
    """
    lengths = dataset.lengths
    if not np.array_equal(np.sort(batches.windows), np.arange(len(lengths))):
        raise RuntimeError("an epoch does not hold every window exactly once")
    documents = dataset.ends - dataset.firsts
    tokens, predicted = int(documents.sum()), dataset.predicted_tokens
    covered, expected = dataset.covered_tokens, dataset.count_labels()
    if predicted != expected:
        raise RuntimeError(f"{expected:,} tokens have a label, and the windows predict {predicted:,}")
    held, places = int(lengths.sum()), _places(lengths, batches, width)
    share = held / places if places else 1.0
    return Account(
        documents=len(np.unique(dataset.documents)),
        tokens=tokens,
        predicted_tokens=predicted,
        context_tokens=covered - predicted,
        dropped_tokens=tokens - covered,
        longest_document=int(documents.max(initial=0)),
        windows=len(dataset),
        batches=len(batches),
        padding=1 - share,
        packing_efficiency=share,
        labelled=predicted / tokens if tokens else 1.0,
    )


@dataclass(frozen=True)
class ExampleAccount:
    """One side's documents and tokens, of tasks that learn labels, targets or masked tokens.

    Attributes:
        tokens: of all documents, without the special ones around them.
        unit, predicted_tokens: what is labelled, and how many of it an epoch has.
        cut_documents, dropped_tokens: documents longer than a block, and their tokens that are in no window.
        windows, batches: of an epoch.
        padding: share of the places in an epoch's batches that hold no token.
        classes: how many documents have each label, or words each tag.
        words_without_tokens: words with a tag that has no token to stand at.
    """

    documents: int
    tokens: int
    unit: str
    predicted_tokens: int
    cut_documents: int
    dropped_tokens: int
    longest_document: int
    windows: int
    batches: int
    padding: float
    classes: dict[str, int]
    words_without_tokens: int = 0


def account_of_examples(
    dataset: ExampleDataset, batches: Batches, pass_tokens: int | None, classes: dict[str, int]
) -> ExampleAccount:
    """The account of an epoch of these batches.

    Args:
        pass_tokens: of `collate_in_parts`.
        classes: how many documents have each label, or words each tag.

    Raises:
        RuntimeError: an example is lost, or would be seen twice.
    """
    lengths = dataset.lengths
    if not np.array_equal(np.sort(batches.windows), np.arange(len(lengths))):
        raise RuntimeError("an epoch does not hold every example exactly once")
    documents = dataset.ends - dataset.firsts
    sides = dataset.sides[batches.windows]
    every = (sides[chosen] for chosen in np.split(batches.order, batches.starts[1:-1]))
    parts = (batch[part] for batch in every for part in cut_by_length(batch, pass_tokens))
    places = sum(len(part) * int(part.max(axis=0).sum()) for part in parts if len(part))
    return ExampleAccount(
        documents=len(documents),
        tokens=int(documents.sum()),
        unit=dataset.unit,
        predicted_tokens=dataset.predicted_tokens,
        cut_documents=dataset.cut_documents,
        dropped_tokens=dataset.dropped_tokens,
        longest_document=int(documents.max(initial=0)),
        windows=len(dataset),
        batches=len(batches),
        padding=1 - int(sides.sum()) / places if places else 0.0,
        classes=classes,
        words_without_tokens=dataset.words_without_tokens,
    )


def _places(lengths: npt.NDArray[np.int64], batches: Batches, width: int | None) -> int:
    """Tokens and padding of all rows of an epoch of windows."""
    if width is not None or not len(batches):
        return len(batches.order) * (width or 0)
    rows = np.add.reduceat(lengths[batches.windows], batches.rows[:-1])[batches.order]
    return int((np.maximum.reduceat(rows, batches.starts[:-1]) * np.diff(batches.starts)).sum())
