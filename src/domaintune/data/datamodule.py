"""What every LightningDataModule here does: batches in an order that is a function of seed and epoch, and their place.

    paths --finding--> files --reading--> rows --documents--> records on the disk --splitting--> train | val | test
          --tokenizing--> tokens on the disk --windows--> windows --batching--> tensors
          --> the task's training_step

Everything up to the splits needs no tokenizer: what is wrong with the data is told before any weights load.
"""

import hashlib
import signal
import time
from dataclasses import asdict
from functools import partial
from typing import Any

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader

from domaintune.config.schema import DataConfig
from domaintune.data.batching import Batches, EpochSampler, Window
from domaintune.data.documents import SIDES
from domaintune.data.labelling import Labels
from domaintune.data.left_out import NO_TOKENS, REFUSED, explained
from domaintune.data.splitting import Splits
from domaintune.data.tokenizing import Tokens
from domaintune.errors import UsageError


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


class EncodedDataModule(L.LightningDataModule):
    """Batches of encoded documents: their order, which is a function of seed and epoch, and the place in it.

    Args:
        config: the `data` group of the config.
        splits: the documents that have tokens, split.
        tokenizer: of the tokens.
        seed: of the order of the training batches.
        tokens: of all documents.
        datasets: {side: its windows or examples}.

    Attributes:
        labels: of the documents, where labels are learnt.
        sampler: what makes batches of windows.
    """

    sampler: type[EpochSampler] = EpochSampler
    labels: Labels | None = None
    order = 1  # raised where the same seed gives other batches than before

    def __init__(
        self,
        config: DataConfig,
        splits: Splits,
        tokenizer: Any,
        seed: int,
        tokens: Tokens,
        datasets: dict[str, Any],
    ) -> None:
        super().__init__()
        self.config, self.splits, self.tokenizer, self.seed = config, splits, tokenizer, seed
        self.tokens, self.datasets = tokens, datasets
        self._made: dict[str, tuple[int, Batches]] = {}
        self.resume_at = {"epoch": 0, "skip": 0}

    def accounts(self) -> dict[str, Any]:
        """What becomes of every token of each side."""
        return {side: self._account(side) for side in SIDES}

    def _account(self, side: str) -> Any:
        raise NotImplementedError

    def probe(self) -> dict[str, torch.Tensor]:
        """What a model's forward takes of one validation document, to compare models by."""
        raise NotImplementedError

    def notes(self) -> list[str]:
        """What of the texts may not be meant, in words and numbers."""
        raise NotImplementedError

    def _collation(self, side: str) -> Any:
        """Makes tensors of the rows of a batch."""
        raise NotImplementedError

    def _make_batches(self, side: str, seed: int, epoch: int) -> Batches:
        raise NotImplementedError

    def account(self) -> dict[str, Any]:
        """What was read, what was left out and why, and what becomes of every token: for result.json."""
        documents = self.splits.documents
        return {
            "documents_read": len(documents) + len(documents.rows_left_out),
            "left_out": self.splits.left_out,
            "messages_after_last_answer": documents.notes["messages_after_last_answer"],
            "duplicates_left_out": self.splits.duplicates,
            "near_duplicates_left_out": self.splits.near_duplicates,
            "held_out_left_out": self.splits.held_out,
            "other_files": dict(self.splits.found.other_files),
            "own_files": self.splits.found.own_files,
            **{side: asdict(account) for side, account in self.accounts().items()},
        }

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
        rank, world_size = self._place_among_processes()
        return TimedLoader(
            self.datasets[side],
            # Where limit_val_batches takes a part, it is the same part in every epoch and for every seed.
            batch_sampler=self.sampler(
                partial(self._batches, side), reshuffle=side == "train", rank=rank, world_size=world_size
            ),
            collate_fn=self._collation(side),
            num_workers=self.config.num_workers,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_leave_signals_to_the_parent,
            generator=torch.Generator().manual_seed(self.seed),  # else each epoch draws from the global random state
        )

    def _place_among_processes(self) -> tuple[int, int]:
        """This process's rank, and how many there are."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _batches(self, side: str, epoch: int) -> Batches:
        """An epoch's batches, made once: they are counted before they are used."""
        made, batches = self._made.get(side, (None, None))
        if batches is None or made != epoch:
            batches = self._make_batches(side, self.seed if side == "train" else self.config.split_seed, epoch)
            self._made[side] = (epoch, batches)
        return batches

    def labels_of_a_batch(self) -> float:
        """How many labels a training batch has in the mean."""
        return self.datasets["train"].predicted_tokens / max(1, len(self._batches("train", 0)))

    def measured_sha256(self, side: str, limit: float) -> str:
        """Of the texts on a side, and where `limit` takes a part of the batches, of what is measured of them.

        Args:
            limit: as Lightning's `limit_val_batches`, a number of batches or a share of them.
        """
        hashes, batches = self.splits.documents.hashes, self._batches(side, 0)
        digest = hashlib.sha256(np.sort(hashes[self.splits.of(side)], axis=0).tobytes())
        _, processes = self._place_among_processes()
        each = -(-len(batches) // processes)
        taken = (min(limit, each) if isinstance(limit, int) else int(limit * each)) * processes
        if taken < len(batches):
            windows = sorted(window for number in range(taken) for row in batches[number] for window in row)
            dataset = self.datasets[side]
            digest.update(hashes[[dataset.documents_of(window)[0] for window in windows]].tobytes())
            digest.update(dataset.lengths[windows].tobytes())
        return digest.hexdigest()

    def documents_of(self, side: str, epoch: int, number: int) -> list[str]:
        """Where the documents of a batch stand, as `file:line`; of all ranks' batches the one with this number."""
        batches, dataset = self._batches(side, epoch), self.datasets[side]
        windows = [window for row in batches[number] for window in row] if number < len(batches) else []
        found = sorted({document for window in windows for document in dataset.documents_of(window)})
        return [self.splits.documents.place(document) for document in found]

    def state_dict(self) -> dict[str, int]:
        """Where the training data stands; Lightning puts it into each checkpoint."""
        assert self.trainer is not None
        done = self.trainer.fit_loop.epoch_loop.batch_progress.current.ready
        per_epoch = int(self.trainer.num_training_batches)
        place = {"epoch": self.trainer.current_epoch + done // per_epoch, "skip": done % per_epoch}
        return {**place, "world_size": self.trainer.world_size, "order": self.order}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        before, (_, now) = state_dict["world_size"], self._place_among_processes()
        if before != now:
            raise UsageError(
                f"the run had {before} processes and now has {now}: what each has "
                f"seen of the data is counted by process. Set trainer.devices as it was, or fresh=true to start over"
            )
        if state_dict.get("order", 1) != self.order and state_dict["skip"]:
            raise UsageError(
                "the run was stopped in the middle of an epoch by an earlier version, which drew other batches: "
                "fresh=true starts it over"
            )
        self.resume_at = {key: state_dict[key] for key in ("epoch", "skip")}


def _leave_signals_to_the_parent(_worker: int) -> None:
    """A terminal, and a scheduler that ends a job, send them to all processes: the parent still needs its workers."""
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def pad_token_id(tokenizer: Any) -> int:
    """The padding token; where there is none (GPT-2), the end-of-text token: no label ever points at padding."""
    token: int = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    return token or 0


def leave_out_empty(splits: Splits, tokens: Tokens, strict: bool) -> Splits:
    """The splits without the documents that have no tokens. Raises UsageError where `strict` and there are some."""
    refused = {number: why for number, why in tokens.refused.items() if splits.side[number] >= 0}
    empty = [number for number in tokens.empty.tolist() if number not in refused]
    empty = [number for number in empty if splits.side[number] >= 0]
    why = {**refused, **dict.fromkeys(empty, "the tokenizer makes no token of it")}
    if strict and why:
        raise UsageError(f"{splits.documents.place(min(why))}: {why[min(why)]}")
    for reason, numbers in ((REFUSED, sorted(refused)), (NO_TOKENS, empty)):
        splits = splits.leave_out(numbers, reason, why[numbers[0]]) if numbers else splits
    return splits


def check_left(given: Splits, splits: Splits, datasets: dict[str, Any]) -> None:
    """Raises UsageError where nothing is left to train on or to measure.

    Args:
        given: before documents without tokens were left out.
    """
    for side, dataset in datasets.items():
        before, left = given.of(side), splits.of(side)
        # What is tested is measured by another command, where there is nothing else.
        if not len(before) or len(dataset) or (side == "test" and len(given.of("train"))):
            continue
        if not len(left):
            raise UsageError(f"nothing is left of the {side} side; left out are {explained(splits.left_out)}")
        places = ", ".join(given.documents.place(number) for number in left[:5].tolist())
        raise UsageError(f"no token of the {side} side has a label: nothing can be learnt from {places}")
