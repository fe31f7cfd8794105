"""The data of causal language models: documents in windows, packed or padded."""

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from domaintune.config.schema import DataConfig
from domaintune.data.accounting import account_of
from domaintune.data.batching import Batch, Batches, collate, packed_batches, padded_batches
from domaintune.data.chatting import plain_template
from domaintune.data.datamodule import EncodedDataModule, check_left, leave_out_empty, pad_token_id
from domaintune.data.documents import SIDES
from domaintune.data.splitting import Splits
from domaintune.data.text_notes import notes_on_ends, notes_on_marks, notes_on_script
from domaintune.data.tokenizing import holds_chats, tokenize
from domaintune.data.windows import StreamDataset, WindowDataset

PROBED_WINDOWS = 4


class LanguageDataModule(EncodedDataModule):
    """Encodes documents, cuts them into windows, packs or pads these.

    Args:
        config: the `data` group of the config.
        splits: the documents, read and split.
        tokenizer: a fast tokenizer with an end-of-text token. For chats one without a template gets a plain one.
        seed: of the order of the training batches.
        cache: the folder of the token cache.

    Attributes:
        splits: without the documents that become no token, or that the chat template refuses.

    Raises:
        UsageError: nothing is left of a side that is trained on or measured; with `data.strict=true`, a document can't
            be used.
    """

    def __init__(self, config: DataConfig, splits: Splits, tokenizer: Any, seed: int, cache: str) -> None:
        self.holds_chats = config.format == "instructions" and holds_chats(splits.documents)
        if self.holds_chats and tokenizer.chat_template is None:
            tokenizer.chat_template = plain_template(tokenizer)
        tokens = tokenize(splits.documents, tokenizer, config.format, cache)
        left = leave_out_empty(splits, tokens, config.strict)
        datasets = {
            side: (StreamDataset if batching_of(config, side) == "concatenated" else WindowDataset)(
                tokens, left.of(side), config.block_size
            )
            for side in SIDES
        }
        check_left(splits, left, datasets)
        super().__init__(config, left, tokenizer, seed, tokens, datasets)

    def probe(self) -> dict[str, torch.Tensor]:
        return {"input_ids": self.datasets["val"].window(0)["input_ids"][None]}

    def notes(self) -> list[str]:
        documents = self.splits.documents
        return [
            *notes_on_marks(self.config, documents, self.tokens, self.tokenizer),
            *(notes_on_ends(self.tokenizer) if self.holds_chats else []),
            *notes_on_script(self.config, documents, self.tokenizer, for_decoders=True),
        ]

    def _account(self, side: str) -> Any:
        return account_of(self.datasets[side], self._batches(side, 0), self._width(side))

    def _width(self, side: str) -> int | None:
        """Tokens of every row; None where it is that of the longest in the batch."""
        return self.config.block_size if batching_of(self.config, side) == "packed" else None

    def _collation(self, side: str) -> Any:
        return partial(collate, block_size=self._width(side), pad_token_id=pad_token_id(self.tokenizer))

    def _make_batches(self, side: str, seed: int, epoch: int) -> Batches:
        lengths, size = self.datasets[side].lengths, self.config.batch_size
        if batching_of(self.config, side) == "packed":
            return packed_batches(lengths, size, seed, epoch, self.config.block_size)
        return padded_batches(lengths, size, seed, epoch)

    def full_batch(self) -> Batch | None:
        """The first training batch of the first epoch with all its rows; None where there is none."""
        batches = self._batches("train", 0)
        for number in range(len(batches)):
            if len(batches[number]) == self.config.batch_size:
                rows = [self.datasets["train"][row] for row in batches[number]]
                batch: Batch = self._collation("train")(rows)
                return batch
        return None

    def windows_in(self, side: str, number: int) -> npt.NDArray[np.int64]:
        """The windows of this rank's batch of an evaluation, in the order in which they stand in it."""
        rank, world_size = self._place_among_processes()
        batches, place = self._batches(side, 0), number * world_size + rank
        rows = batches[place] if place < len(batches) else []
        return np.array([window for row in rows for window in row], dtype=np.int64)

    def by_document(self, side: str, sums: npt.NDArray[np.float64]) -> dict[str, npt.NDArray[Any]]:
        """What was measured, summed over the windows of each document.

        Args:
            sums: (W, 2) of each window the sum of its losses, and of how many tokens; none where it wasn't measured.

        Returns:
            `hash` (D, 2) of the documents' texts in the order of reading, `loss`, `tokens` and `bytes` (D,) of what
            was predicted of them. Documents of which nothing was are left out.
        """
        dataset = self.datasets[side]
        sequence = np.searchsorted(dataset.firsts, dataset.windows[:, 0], side="right") - 1
        documents, place = np.unique(dataset.documents[sequence], return_inverse=True)
        columns = [sums[:, 0], sums[:, 1], dataset.text_bytes * (sums[:, 1] > 0)]
        loss, tokens, text_bytes = (np.bincount(place, column, len(documents)) for column in columns)
        measured = np.flatnonzero(tokens)
        return {
            "hash": self.splits.documents.hashes[documents[measured]],
            "loss": loss[measured],
            "tokens": tokens[measured].astype(np.int64),
            "bytes": text_bytes[measured].astype(np.int64),
        }

    def packed_example(self) -> Batch | None:
        """A row of real windows to probe a model with; None where no row can hold two."""
        dataset = max((self.datasets[side] for side in SIDES if self._width(side)), key=len)
        row = np.argsort(dataset.lengths, kind="stable")[:PROBED_WINDOWS]
        row = row[dataset.lengths[row].cumsum() <= self.config.block_size]
        if len(row) < 2:
            return None
        return collate([dataset[row.tolist()]], self.config.block_size, pad_token_id(self.tokenizer))


def batching_of(config: DataConfig, side: str) -> str:
    """Concatenated is a way to train; what is validated on is always measured document by document."""
    return "packed" if config.batching == "concatenated" and side != "train" else config.batching
