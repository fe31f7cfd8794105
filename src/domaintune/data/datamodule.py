"""The one LightningDataModule.

    paths --finding--> files --reading--> rows --documents--> texts on the disk --splitting--> train | val | test
          --tokenizing--> tokens on the disk --packing--> windows --sampling--> rows of a batch --collating--> tensors
          --> the task's training_step

Everything up to the splits needs no tokenizer: what is wrong with the data is told before any weights load.
"""

import time
from dataclasses import asdict
from functools import partial
from typing import Any

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader

from domaintune.config import DataConfig, UsageError
from domaintune.data.accounting import Account, account_of
from domaintune.data.collating import IGNORED, Batch, Window, pack, pad
from domaintune.data.documents import SIDES
from domaintune.data.sampling import Batches, EpochSampler, packed_batches, padded_batches
from domaintune.data.splitting import Splits
from domaintune.data.tokenizing import PLAIN_TEMPLATE, holds_chats, tokenize
from domaintune.data.windows import StreamDataset, WindowDataset

PROBED_WINDOWS = 4


class TimedLoader(DataLoader[list[Window]]):
    """Knows for how many seconds it was waited for."""

    waited = 0.0

    def __iter__(self) -> Any:
        batches = super().__iter__()
        while True:
            started = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - started
            if batch is None:
                return
            yield batch


class TextDataModule(L.LightningDataModule):
    """Encodes, cuts into windows, packs or pads.

    Args:
        config: the `data` group of the config.
        splits: the documents, read and split.
        tokenizer: a fast tokenizer with an end-of-text token. For chats one without a template gets a plain one.
        seed: of the order of the training batches.
        cache: the folder of the token cache.

    Raises:
        UsageError: no token of the training or validation side has a label.
    """

    def __init__(self, config: DataConfig, splits: Splits, tokenizer: Any, seed: int, cache: str) -> None:
        super().__init__()
        self.config, self.splits, self.tokenizer, self.seed = config, splits, tokenizer, seed
        if config.format == "instructions" and tokenizer.chat_template is None and holds_chats(splits.documents):
            tokenizer.chat_template = PLAIN_TEMPLATE
        self.tokens = tokenize(splits.documents, tokenizer, config.format, cache)
        self.datasets = {side: self._dataset(side) for side in SIDES}
        self._made: dict[str, tuple[int, Batches]] = {}
        self.resume_at = {"epoch": 0, "skip": 0}

    def _batching(self, side: str) -> str:
        """Concatenated is a way to train; what is validated on is always measured document by document."""
        return "packed" if self.config.batching == "concatenated" and side != "train" else self.config.batching

    def _dataset(self, side: str) -> WindowDataset:
        dataset = StreamDataset if self._batching(side) == "concatenated" else WindowDataset
        windows = dataset(self.tokens, self.splits.of(side), self.config.block_size)
        if side != "test" and len(windows.documents) and not len(windows):
            places = ", ".join(self.splits.documents.place(number) for number in windows.documents[:5].tolist())
            raise UsageError(f"no token of the {side} side has a label: nothing can be learnt from {places}")
        return windows

    def accounts(self) -> dict[str, Account]:
        """What becomes of every token of each side."""
        return {side: account_of(self.datasets[side], self._batches(side, 0), self._width(side)) for side in SIDES}

    def account(self) -> dict[str, Any]:
        """What was read, what was left out and why, and what becomes of every token: for result.json."""
        documents = self.splits.documents
        return {
            "documents_read": len(documents) + len(documents.blanks),
            "blank_left_out": len(documents.blanks),
            "blank_places": documents.blank_places(),
            "duplicates_left_out": self.splits.duplicates,
            "near_duplicates_left_out": self.splits.near_duplicates,
            "held_out_groups_left_out": self.splits.held_out_groups,
            **{side: asdict(account) for side, account in self.accounts().items()},
        }

    def _width(self, side: str) -> int | None:
        """Tokens of every row; None where it is that of the longest in the batch."""
        return self.config.block_size if self._batching(side) == "packed" else None

    def train_dataloader(self) -> TimedLoader:
        loader = self._loader("train")
        sampler = loader.batch_sampler
        assert isinstance(sampler, EpochSampler)
        # Workers fetch ahead before Lightning calls set_epoch, so the epoch is set here already.
        sampler.set_epoch(self.resume_at["epoch"])
        sampler.skip, self.resume_at["skip"] = self.resume_at["skip"], 0
        return loader

    def val_dataloader(self) -> TimedLoader:
        return self._loader("val")

    def test_dataloader(self) -> TimedLoader:
        return self._loader("test")

    def _loader(self, side: str) -> TimedLoader:
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return TimedLoader(
            self.datasets[side],
            # Where limit_val_batches takes a part, it is the same part in every epoch and for every seed.
            batch_sampler=EpochSampler(
                partial(self._batches, side), reshuffle=side == "train", rank=rank, world_size=world_size
            ),
            collate_fn=partial(collate, block_size=self._width(side), pad_token_id=pad_token_id(self.tokenizer)),
            num_workers=self.config.num_workers,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator().manual_seed(self.seed),  # else each epoch draws from the global random state
        )

    def _batches(self, side: str, epoch: int) -> Batches:
        """An epoch's batches, made once: they are counted before they are used."""
        made, batches = self._made.get(side, (None, None))
        if batches is None or made != epoch:
            lengths, size = self.datasets[side].lengths, self.config.batch_size
            seed = self.seed if side == "train" else self.config.split_seed
            if self._batching(side) == "packed":
                batches = packed_batches(lengths, size, seed, epoch, self.config.block_size)
            else:
                batches = padded_batches(lengths, size, seed, epoch)
            self._made[side] = (epoch, batches)
        return batches

    def full_batch(self) -> Batch | None:
        """The first training batch of the first epoch with all its rows; None where there is none."""
        batches = self._batches("train", 0)
        for number in range(len(batches)):
            if len(batches[number]) == self.config.batch_size:
                rows = [self.datasets["train"][row] for row in batches[number]]
                return collate(rows, self._width("train"), pad_token_id(self.tokenizer))
        return None

    def packed_example(self) -> Batch | None:
        """A row of real windows to probe a model with; None where no row can hold two."""
        dataset = max((self.datasets[side] for side in SIDES if self._width(side)), key=len)
        row = np.argsort(dataset.lengths, kind="stable")[:PROBED_WINDOWS]
        row = row[dataset.lengths[row].cumsum() <= self.config.block_size]
        if len(row) < 2:
            return None
        return collate([dataset[row.tolist()]], self.config.block_size, pad_token_id(self.tokenizer))

    def state_dict(self) -> dict[str, int]:
        """Where the training data stands; Lightning puts it into each checkpoint."""
        assert self.trainer is not None
        done = self.trainer.fit_loop.epoch_loop.batch_progress.current.ready
        per_epoch = int(self.trainer.num_training_batches)
        return {"epoch": self.trainer.current_epoch + done // per_epoch, "skip": done % per_epoch}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.resume_at = dict(state_dict)


def collate(rows: list[list[Window]], block_size: int | None, pad_token_id: int) -> Batch:
    """A batch of rows, packed into blocks, or padded where `block_size` is None.

    A rank that ran out of rows gets one that predicts nothing, so that no other waits for it.
    """
    nothing: Window = {"input_ids": torch.tensor([pad_token_id]), "labels": torch.tensor([IGNORED]), "bytes": 0}
    rows = rows or [[nothing]]
    if block_size is not None:
        return pack(rows, block_size, pad_token_id)
    return pad([window for row in rows for window in row], pad_token_id)


def pad_token_id(tokenizer: Any) -> int:
    """The padding token; where there is none (GPT-2), the end-of-text token: no label ever points at padding."""
    return tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
