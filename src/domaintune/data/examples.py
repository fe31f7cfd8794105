"""What the tasks beside the language model learn from, as datasets; an item is a row of one example."""

from collections.abc import Iterator
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from domaintune.data.batching import IGNORED
from domaintune.data.encoder import CONTEXT, Specials
from domaintune.data.formats.entities import cut_at_words
from domaintune.data.tokenizing import Tokens

READ_TOKENS = 1 << 20  # at once


class Example(TypedDict):
    """(T,) ids with the special tokens, and what is learnt.

    Attributes:
        labels: of a text () its class, or (K,) 1.0 for each label that it has; of words and masked tokens (T,), IGNORED
            where there is nothing to learn; of a pair the (U,) ids of the target.
        window: the example's number in its dataset.
    """

    input_ids: torch.Tensor
    labels: torch.Tensor
    window: int


class ExampleBatch(TypedDict):
    """Examples, one a row, padded on the right.

    Attributes:
        input_ids, attention_mask: (B, T). What is padding is known by length, never by its id.
        labels: (B,), (B, K), (B, T) or (B, U): the examples', padded with IGNORED.
        labelled: how many labels count.
        places, targets: (M,) where in the flattened labels those are that count, and they themselves. Found here, since
            finding them on a GPU would make the program wait for it.
        tokens: how many of (B, T) and of a pair's target are no padding.
        windows: (B,) numbers of the examples; none of a row that only fills a rank's missing batch.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    labels: torch.Tensor
    labelled: int
    places: torch.Tensor
    targets: torch.Tensor
    tokens: int
    windows: list[int]


class ExampleDataset(Dataset[list[Example]]):
    """The examples of one side's documents: a document each, cut off where it is too long.

    Args:
        tokens: of all documents.
        documents: (D,) the numbers of this side's.
        specials: what stands around each example.
        block_size: the most tokens of an example, special ones counted.

    Attributes:
        windows: (W, 2) first token and end of each, special tokens not counted.
        of: (W,) the place in `documents` of the document that each was cut from.
        unit: what has a label.
        reads_labels: whether the model is given the labels' tokens too, as a decoder is.
        is_drawn: whether an example is drawn anew in each epoch; then an index is (epoch, window).
    """

    unit = "texts"
    reads_labels = False
    is_drawn = False
    words_without_tokens = 0

    def __init__(self, tokens: Tokens, documents: npt.NDArray[np.int64], specials: Specials, block_size: int) -> None:
        self.tokens, self.documents, self.specials = tokens, documents, specials
        self.room = block_size - len(specials)
        self.firsts, self.ends = tokens.starts[documents], tokens.starts[documents + 1]
        self.windows = np.stack([self.firsts, np.minimum(self.ends, self.firsts + self.room)], axis=1)
        self.of = np.arange(len(documents))

    def _byte_counts(self) -> Iterator[npt.NDArray[np.int32]]:
        """`Tokens.byte_counts` of each document, of many documents read at once."""
        place = 0
        while place < len(self.documents):
            first = int(self.firsts[place])
            stop = max(place + 1, int(np.searchsorted(self.ends, first + READ_TOKENS, side="right")))
            counts = self.tokens.byte_counts(first, int(self.ends[stop - 1]))
            yield from (
                counts[a - first : b - first]
                for a, b in zip(self.firsts[place:stop], self.ends[place:stop], strict=True)
            )
            place = stop

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(W,) tokens of each example that the model is given."""
        return self.windows[:, 1] - self.windows[:, 0] + len(self.specials)

    @property
    def dropped_tokens(self) -> int:
        """Tokens in no example."""
        return int((self.ends - self.firsts).sum() - (self.windows[:, 1] - self.windows[:, 0]).sum())

    @property
    def cut_documents(self) -> int:
        """Documents that were longer than a block."""
        return int((self.ends - self.firsts > self.room).sum())

    @property
    def nothing(self) -> torch.Tensor:
        """The labels of an example of one token, none of which counts: it stands in where a rank has no row."""
        return torch.full((1,), IGNORED)

    @property
    def sides(self) -> npt.NDArray[np.int64]:
        """(W, S) tokens of each example that the model reads, in each of the tensors that are padded for themselves."""
        return self.lengths[:, None]

    @property
    def trained_tokens(self) -> int:
        """Tokens of an epoch."""
        return int(self.sides.sum())

    @property
    def predicted_tokens(self) -> int:
        """Labels of an epoch."""
        return len(self.windows)

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, row: list[int]) -> list[Example]:
        return [self.example(index) for index in row]

    def input_ids(self, index: int) -> torch.Tensor:
        first, end = self.windows[index].tolist()
        return torch.from_numpy(self.specials.around(self.tokens.ids(first, end)))

    def example(self, index: int) -> Example:
        raise NotImplementedError

    def documents_of(self, index: int) -> list[int]:
        """The number of the document that an example is of."""
        return [int(self.documents[self.of[index]])]


class TextLabels(ExampleDataset):
    """Texts with a label, or several.

    Args:
        given: see ExampleDataset.
        label_of: as `Labels.of`.
    """

    def __init__(self, *given: Any, label_of: npt.NDArray[Any]) -> None:
        super().__init__(*given)
        self.label_of = label_of

    @property
    def nothing(self) -> torch.Tensor:
        several = self.label_of.ndim > 1
        return torch.full(self.label_of.shape[1:], IGNORED, dtype=torch.float32 if several else torch.int64)

    def example(self, index: int) -> Example:
        label = self.label_of[self.documents_of(index)[0]]
        labels = torch.tensor(label, dtype=torch.float32 if label.ndim else torch.int64)
        return {"input_ids": self.input_ids(index), "labels": labels, "window": index}


class WordTags(ExampleDataset):
    """Sentences with a tag for each word, which stands at the word's first token; long ones are cut at words.

    Args:
        given: see ExampleDataset.
        tags, words: as `Labels.of` and `Labels.words`.

    Attributes:
        words_in: (W,) how many words of a window have a tag.
    """

    unit = "words"

    def __init__(self, *given: Any, tags: npt.NDArray[np.int64], words: npt.NDArray[np.int64]) -> None:
        super().__init__(*given)
        self.tags, self.words = tags, words
        windows, of, words_in = [np.empty((0, 2), dtype=np.int64)], [], []
        for place, (first, numbers) in enumerate(zip(self.firsts, self._byte_counts(), strict=True)):
            cut = cut_at_words(numbers, self.room)
            windows.append(np.array(cut, dtype=np.int64) + first)
            of += [place] * len(cut)
            words_in += [int((numbers[start:stop] != CONTEXT).sum()) for start, stop in cut]
        self.windows, self.of = np.concatenate(windows), np.array(of, dtype=np.int64)
        self.words_in = np.array(words_in, dtype=np.int64)

    @property
    def predicted_tokens(self) -> int:
        return int(self.words_in.sum())

    @property
    def words_without_tokens(self) -> int:  # type: ignore[override]
        """Words that a tokenizer makes no token of, as one whose characters it drops."""
        return int((self.words[self.documents + 1] - self.words[self.documents]).sum()) - self.predicted_tokens

    def words_of(self, index: int) -> npt.NDArray[np.int32]:
        """(T,) the word that each of an example's tokens is the first of, else CONTEXT; special tokens not counted."""
        return self.tokens.byte_counts(*self.windows[index].tolist())

    def tags_of(self, index: int) -> npt.NDArray[np.int64]:
        """The tags of the whole sentence that an example is of."""
        (document,) = self.documents_of(index)
        return self.tags[self.words[document] : self.words[document + 1]]

    def example(self, index: int) -> Example:
        ids, words = self.input_ids(index), self.words_of(index)
        labels, tags = torch.full_like(ids, IGNORED), self.tags_of(index)
        places = np.flatnonzero(words != CONTEXT)
        labels[torch.from_numpy(places) + self.specials.before.size] = torch.from_numpy(tags[words[places]])
        return {"input_ids": ids, "labels": labels, "window": index}


class Pairs(ExampleDataset):
    """Sources and targets, both cut off where they are too long.

    Args:
        given: see ExampleDataset.
        target_size: the most tokens of a target, special ones counted.
    """

    unit = "target tokens"
    reads_labels = True

    def __init__(self, *given: Any, target_size: int) -> None:
        super().__init__(*given)
        sources = [int((counts == CONTEXT).sum()) for counts in self._byte_counts()]
        self.between = self.firsts + np.array(sources, dtype=np.int64)
        self.target_ends = np.minimum(self.ends, self.between + target_size - len(self.specials))
        self.windows = np.stack([self.firsts, np.minimum(self.between, self.firsts + self.room)], axis=1)

    @property
    def target_lengths(self) -> npt.NDArray[np.int64]:
        """(W,) with special tokens."""
        return self.target_ends - self.between + len(self.specials)

    @property
    def dropped_tokens(self) -> int:
        return int((self.between - self.windows[:, 1]).sum() + (self.ends - self.target_ends).sum())

    @property
    def cut_documents(self) -> int:
        return int(((self.between > self.windows[:, 1]) | (self.ends > self.target_ends)).sum())

    @property
    def sides(self) -> npt.NDArray[np.int64]:
        return np.stack([self.lengths, self.target_lengths], axis=1)

    @property
    def predicted_tokens(self) -> int:
        return int(self.target_lengths.sum())

    def example(self, index: int) -> Example:
        target = self.tokens.ids(int(self.between[index]), int(self.target_ends[index]))
        return {
            "input_ids": self.input_ids(index),
            "labels": torch.from_numpy(self.specials.around(target)),
            "window": index,
        }


class MaskedTokens(ExampleDataset):
    """Plain text in windows, some of whose tokens are masked: BERT's 80 % by the mask, 10 % by any token, 10 % not.

    Which ones is drawn anew for every epoch, and a function of seed, epoch and window alone (Devlin et al., "BERT",
    2019; Liu et al., "RoBERTa", 2019).

    Args:
        given: see ExampleDataset.
        fraction: of a window's tokens; at least one is masked.
        mask_id, vocabulary: the token that masks, and how many tokens there are.
        seed: of the draws.
    """

    unit = "masked tokens"
    is_drawn = True

    def __init__(self, *given: Any, fraction: float, mask_id: int, vocabulary: int, seed: int) -> None:
        super().__init__(*given)
        self.fraction, self.mask_id, self.vocabulary, self.seed = fraction, mask_id, vocabulary, seed
        counts = -(-(self.ends - self.firsts) // self.room)
        self.of = np.repeat(np.arange(len(counts)), counts)
        number = np.arange(len(self.of)) - np.repeat(np.cumsum(counts) - counts, counts)
        first = self.firsts[self.of] + number * self.room
        self.windows = np.stack([first, np.minimum(first + self.room, self.ends[self.of])], axis=1)

    def masked_of(self, length: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """How many of so many tokens are masked."""
        return np.maximum(1, np.rint(self.fraction * length)).astype(np.int64)

    @property
    def predicted_tokens(self) -> int:
        return int(self.masked_of(self.lengths - len(self.specials)).sum())

    def __getitem__(self, row: Any) -> list[Example]:
        return [self.masked(epoch, index) for epoch, index in row]

    def example(self, index: int) -> Example:
        return self.masked(0, index)

    def masked(self, epoch: int, index: int) -> Example:
        draw = np.random.default_rng([self.seed, epoch, index])
        ids = self.input_ids(index)
        length = len(ids) - len(self.specials)
        places = draw.permutation(length)[: int(self.masked_of(np.array(length)))] + self.specials.before.size
        by = draw.random(len(places))
        labels = torch.full_like(ids, IGNORED)
        labels[places] = ids[places]
        ids[places[by < 0.8]] = self.mask_id
        other = places[(by >= 0.8) & (by < 0.9)]
        ids[other] = torch.from_numpy(draw.integers(0, self.vocabulary, len(other)))
        return {"input_ids": ids, "labels": labels, "window": index}


def collate_examples(
    rows: list[list[Example]], nothing: Example, pad_token_id: int, reads_labels: bool = False
) -> ExampleBatch:
    """A batch of rows.

    Args:
        nothing: stands in where a rank ran out of rows; its labels don't count.
        reads_labels: whether the model is given the labels' tokens too, as a decoder is.
    """
    examples = [example for row in rows for example in row] or [nothing]
    ids = [example["input_ids"] for example in examples]
    labels = [example["labels"] for example in examples]
    read = [*ids, *labels] if reads_labels else ids
    padded = pad_sequence(labels, batch_first=True, padding_value=IGNORED) if labels[0].ndim else torch.stack(labels)
    places = (padded.flatten() != IGNORED).nonzero()[:, 0]
    return {
        "input_ids": pad_sequence(ids, batch_first=True, padding_value=pad_token_id),
        "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
        "labels": padded,
        "labelled": len(rows) if padded.is_floating_point() else len(places),  # of several labels a text all K are one
        "places": places,
        "targets": padded.flatten()[places],
        "tokens": sum(len(row) for row in read) if rows else 0,
        "windows": [example["window"] for example in examples] if rows else [],
    }


def collate_in_parts(
    rows: list[list[Example]], pass_tokens: int | None, nothing: Example, pad_token_id: int, reads_labels: bool = False
) -> dict[str, list[ExampleBatch]]:
    """A batch as parts of rows of like lengths. Their losses add up to the batch's, and little of them is padding.

    Args:
        pass_tokens: what a pass of a part through the model costs beside its tokens, in tokens; None for one part.
        nothing, pad_token_id, reads_labels: of `collate_examples`.
    """
    parts = cut_by_length(np.array([_sides(row, reads_labels) for row in rows]), pass_tokens)
    return {
        "parts": [collate_examples([rows[row] for row in part], nothing, pad_token_id, reads_labels) for part in parts]
    }


def _sides(row: list[Example], reads_labels: bool) -> list[int]:
    """Tokens in each tensor that a model reads; see `ExampleDataset.sides`."""
    (example,) = row
    return [len(example["input_ids"]), *[example["labels"].numel()] * reads_labels]


def cut_by_length(sides: npt.NDArray[np.int64], cost: int | None) -> list[list[int]]:
    """Rows of a batch in parts, for which padded rows, and `cost` for each part, are least together.

    By dynamic programming over the rows in order of length: O(B^2). None as a cost makes one part.

    Args:
        sides: (B, S) see `ExampleDataset.sides`.
    """
    if cost is None or not len(sides):
        return [list(range(len(sides)))]
    order = np.argsort(sides.sum(1), kind="stable")
    ordered, count = sides[order], len(sides)
    least, begins = np.zeros(count + 1), np.zeros(count + 1, dtype=np.int64)
    for end in range(1, count + 1):
        widths = np.maximum.accumulate(ordered[:end][::-1])[::-1].sum(1)  # of a part that begins at each row
        totals = least[:end] + cost + (end - np.arange(end)) * widths
        begins[end] = totals.argmin()
        least[end] = totals[begins[end]]
    parts, end = [], count
    while end:
        parts.append(order[begins[end] : end].tolist())
        end = int(begins[end])
    return parts[::-1]
