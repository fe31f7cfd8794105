"""The one LightningDataModule.

    files --reading--> documents --splitting--> train | val | test --tokenizing--> token arrays
          --packing--> windows --sampling--> rows of a batch --collating--> tensors --> the task's training_step

Everything up to the splits needs no tokenizer: what is wrong with the data is told before any weights load.
"""

from functools import partial
from typing import Any

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from domaintune.config import DataConfig
from domaintune.data.collating import Batch, Window, pack, pad
from domaintune.data.packing import cut_windows
from domaintune.data.sampling import EpochSampler, Rows, packed_batches, padded_batches
from domaintune.data.splitting import SIDES, Splits
from domaintune.data.tokenizing import Tokens, tokenize

PROBED_WINDOWS = 4


class WindowDataset(Dataset[list[Window]]):
    """The windows of one side's token array; an item is a row of them."""

    def __init__(self, tokens: Tokens, block_size: int) -> None:
        self.tokens = tokens
        self.windows = cut_windows(tokens.starts, block_size)
        self.bytes_before = np.concatenate([[0], np.cumsum(tokens.byte_counts, dtype=np.int64)])

    @property
    def lengths(self) -> np.ndarray:
        return self.windows[:, 1] - self.windows[:, 0]

    @property
    def predicted_tokens(self) -> int:
        """Tokens that a full pass predicts: all but each document's first."""
        return int((self.lengths - 1).sum())

    @property
    def dropped_tokens(self) -> int:
        """Tokens that are neither predicted nor the first of a document: none."""
        return len(self.tokens.ids) - (len(self.tokens.starts) - 1) - self.predicted_tokens

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, row: list[int]) -> list[Window]:
        return [self.window(index) for index in row]

    def window(self, index: int) -> Window:
        first, end = self.windows[index]
        return {
            "input_ids": torch.from_numpy(self.tokens.ids[first:end].astype(np.int64)),
            "bytes": int(self.bytes_before[end] - self.bytes_before[first + 1]),
        }


class TextDataModule(L.LightningDataModule):
    """Encodes, cuts into windows, packs or pads.

    Args:
        config: the `data` group of the config.
        splits: the documents, read and split.
        tokenizer: a fast tokenizer with an end-of-text token.
        seed: of the order of the training batches.
    """

    def __init__(self, config: DataConfig, splits: Splits, tokenizer: Any, seed: int) -> None:
        super().__init__()
        self.config, self.tokenizer, self.seed = config, tokenizer, seed
        self.datasets = {
            side: WindowDataset(tokenize(getattr(splits, side), tokenizer), config.block_size) for side in SIDES
        }
        self.resume_at = {"epoch": 0, "skip": 0}

    def train_dataloader(self) -> DataLoader[list[Window]]:
        loader = self._loader("train")
        sampler = loader.batch_sampler
        assert isinstance(sampler, EpochSampler)
        # Workers fetch ahead before Lightning calls set_epoch, so the epoch is set here already.
        sampler.set_epoch(self.resume_at["epoch"])
        sampler.skip, self.resume_at["skip"] = self.resume_at["skip"], 0
        return loader

    def val_dataloader(self) -> DataLoader[list[Window]]:
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[list[Window]]:
        return self._loader("test")

    def _loader(self, side: str) -> DataLoader[list[Window]]:
        dataset = self.datasets[side]
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        training = side == "train"
        return DataLoader(
            dataset,
            # Where limit_val_batches takes a part, it is the same part in every epoch and for every seed.
            batch_sampler=EpochSampler(
                partial(self._batches, dataset.lengths, self.seed if training else self.config.split_seed),
                reshuffle=training,
                rank=rank,
                world_size=world_size,
            ),
            collate_fn=partial(collate, config=self.config, pad_token_id=pad_token_id(self.tokenizer)),
            num_workers=self.config.num_workers,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator().manual_seed(self.seed),  # else each epoch draws from the global random state
        )

    def _batches(self, lengths: np.ndarray, seed: int, epoch: int) -> list[Rows]:
        if self.config.batching == "packed":
            return packed_batches(lengths, self.config.batch_size, seed, epoch, self.config.block_size)
        return padded_batches(lengths, self.config.batch_size, seed, epoch)

    def packed_example(self) -> Batch | None:
        """A row of real windows to probe a model with; None where no row can hold two."""
        dataset = max(self.datasets.values(), key=len)
        row = np.argsort(dataset.lengths, kind="stable")[:PROBED_WINDOWS]
        row = row[dataset.lengths[row].cumsum() <= self.config.block_size]
        return collate([dataset[row.tolist()]], self.config, pad_token_id(self.tokenizer)) if len(row) > 1 else None

    def state_dict(self) -> dict[str, int]:
        """Where the training data stands; Lightning puts it into each checkpoint."""
        assert self.trainer is not None
        done = self.trainer.fit_loop.epoch_loop.batch_progress.current.ready
        per_epoch = int(self.trainer.num_training_batches)
        return {"epoch": self.trainer.current_epoch + done // per_epoch, "skip": done % per_epoch}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.resume_at = dict(state_dict)


def collate(rows: list[list[Window]], config: DataConfig, pad_token_id: int) -> Batch:
    """A batch of rows; a rank that ran out of them gets one that predicts nothing, so that no other waits for it."""
    rows = rows or [[{"input_ids": torch.tensor([pad_token_id]), "bytes": 0}]]
    if config.batching == "packed":
        return pack(rows, config.block_size, pad_token_id)
    return pad([window for row in rows for window in row], pad_token_id)


def pad_token_id(tokenizer: Any) -> int:
    """The padding token; where there is none (GPT-2), the end-of-text token: no label ever points at padding."""
    return tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
