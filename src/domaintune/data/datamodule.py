"""The one LightningDataModule.

    paths --finding--> files --reading--> rows --documents--> texts on the disk --splitting--> train | val | test
          --tokenizing--> tokens on the disk --packing--> windows --sampling--> rows of a batch --collating--> tensors
          --> the task's training_step

Everything up to the splits needs no tokenizer: what is wrong with the data is told before any weights load.
"""

import hashlib
import shlex
import signal
import time
from dataclasses import asdict
from functools import partial
from typing import Any

import lightning as L
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader

from domaintune.config.programs import program
from domaintune.config.schema import DataConfig
from domaintune.data.accounting import account_of
from domaintune.data.chatting import Chats, plain_template
from domaintune.data.collating import IGNORED, Batch, Window, pack, pad
from domaintune.data.documents import SIDES
from domaintune.data.encoder import Encoder
from domaintune.data.fields import strings_in
from domaintune.data.labelling import Labels
from domaintune.data.left_out import NO_TOKENS, REFUSED, explained
from domaintune.data.sampling import POOL, Batches, EpochSampler, packed_batches, padded_batches
from domaintune.data.splitting import Splits
from domaintune.data.tokenizing import Tokens, holds_chats, tokenize
from domaintune.data.windows import StreamDataset, WindowDataset
from domaintune.errors import UsageError

PROBED_WINDOWS = 4
MANY_MARKED = 20  # one text in so many that holds the name of a special token is worth a note
NAMED = 3  # special tokens that notes name
SAMPLED_BYTES = 300_000  # of the texts whose script is looked at
MANY_UNKNOWN = 0.1  # tokens a token that stand for unknown signs
FOREIGN = 0.3  # the share of characters beyond ASCII from which a script counts as another one
CUT_INTO_BYTES = 0.5  # tokens a byte from which on a tokenizer doesn't know a script: Chinese, known, takes 0.25


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

    Attributes:
        splits: without the documents that become no token, or that the chat template refuses.
        labels: of the documents, where labels are learnt.
        sampler: what makes batches of windows.

    Raises:
        UsageError: nothing is left of a side that is trained on or measured; with `data.strict=true`, a document can't
            be used.
    """

    sampler: type[EpochSampler] = EpochSampler
    labels: Labels | None = None

    draws_from_all_lengths = False  # of padded training batches
    order = 1  # raised where the same seed gives other batches than before
    for_decoders = True  # which can start at random weights with a tokenizer of one's own

    def __init__(self, config: DataConfig, splits: Splits, tokenizer: Any, seed: int, cache: str) -> None:
        super().__init__()
        self.config, self.splits, self.tokenizer, self.seed = config, splits, tokenizer, seed
        if self._holds_chats() and tokenizer.chat_template is None:
            tokenizer.chat_template = plain_template(tokenizer)
        self.tokens = self._encode(cache)
        self.splits = self._usable()
        self.datasets = {side: self._dataset(side) for side in SIDES}
        self._check_left(splits)
        self._made: dict[str, tuple[int, Batches]] = {}
        self.resume_at = {"epoch": 0, "skip": 0}

    def _encode(self, cache: str) -> Tokens:
        return tokenize(self.splits.documents, self.tokenizer, self.config.format, cache)

    def _holds_chats(self) -> bool:
        return self.config.format == "instructions" and holds_chats(self.splits.documents)

    def _batching(self, side: str) -> str:
        """Concatenated is a way to train; what is validated on is always measured document by document."""
        return "packed" if self.config.batching == "concatenated" and side != "train" else self.config.batching

    def _dataset(self, side: str) -> Any:
        dataset = StreamDataset if self._batching(side) == "concatenated" else WindowDataset
        return dataset(self.tokens, self.splits.of(side), self.config.block_size)

    def _usable(self) -> Splits:
        """The splits without the documents that have no tokens."""
        refused = {number: why for number, why in self.tokens.refused.items() if self.splits.side[number] >= 0}
        empty = [number for number in self.tokens.empty.tolist() if number not in refused]
        empty = [number for number in empty if self.splits.side[number] >= 0]
        why = {**refused, **dict.fromkeys(empty, "the tokenizer makes no token of it")}
        if self.config.strict and why:
            raise UsageError(f"{self.splits.documents.place(min(why))}: {why[min(why)]}")
        splits = self.splits
        for reason, numbers in ((REFUSED, sorted(refused)), (NO_TOKENS, empty)):
            splits = splits.leave_out(numbers, reason, why[numbers[0]]) if numbers else splits
        return splits

    def _check_left(self, given: Splits) -> None:
        """Raises UsageError where nothing is left to train on or to measure."""
        for side, dataset in self.datasets.items():
            before, left = given.of(side), self.splits.of(side)
            # What is tested is measured by another command, where there is nothing else.
            if not len(before) or len(dataset) or (side == "test" and len(given.of("train"))):
                continue
            if not len(left):
                raise UsageError(f"nothing is left of the {side} side; left out are {explained(self.splits.left_out)}")
            places = ", ".join(given.documents.place(number) for number in left[:5].tolist())
            raise UsageError(f"no token of the {side} side has a label: nothing can be learnt from {places}")

    def accounts(self) -> dict[str, Any]:
        """What becomes of every token of each side."""
        return {side: self._account(side) for side in SIDES}

    def _account(self, side: str) -> Any:
        return account_of(self.datasets[side], self._batches(side, 0), self._width(side))

    def probe(self) -> dict[str, torch.Tensor]:
        """What a model's forward takes of one validation document, to compare models by."""
        return {"input_ids": self.datasets["val"].window(0)["input_ids"][None]}

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

    def notes(self) -> list[str]:
        """What of the texts may not be meant, in words and numbers."""
        texts, end = len(self.splits.documents), self.tokenizer.eos_token
        many = {name: number for name, number in self.tokens.marked.items() if number >= max(2, texts / MANY_MARKED)}
        if self.config.format not in ("text", "instructions"):
            return self._about_script()
        does = "ends a document there" if self.config.format == "text" else "leaves it out where a text ends in it"
        way_out = "" if self.config.marks else f"; data.marks=end {does}"
        return [
            f"{number:,} of {texts:,} texts hold {name}, which stays plain text" + way_out * (name == end)
            for name, number in sorted(many.items(), key=lambda item: (item[0] != end, -item[1]))[:NAMED]
        ] + [*self._about_ends(), *self._about_script()]

    def _about_script(self) -> list[str]:
        """Where the tokenizer cuts the text's script into bytes, as one made for English does with Chinese."""
        documents = self.splits.documents
        text = " ".join(strings_in(list(documents.records(*next(documents.batches(SAMPLED_BYTES), (0, 0))))))
        if not text or sum(not character.isascii() for character in text) < FOREIGN * len(text):
            return []
        ids = Encoder(self.tokenizer).ids(text)
        path = self.config.path if isinstance(self.config.path, str) else "CORPUS"
        own = (
            f", or make your own ({program('make_tokenizer')} {shlex.quote(f'data.path={path}')} out=START) and "
            f"start at random weights (model.checkpoint=START model.init=random optim.lr=1e-3)"
        )
        way_out = f"Take a model.checkpoint whose tokenizer knows it{own * self.for_decoders}"
        if (unknown := ids.count(self.tokenizer.unk_token_id) / len(ids)) > MANY_UNKNOWN:
            which = (
                f"{unknown:.0%} of its tokens are {self.tokenizer.unk_token}, which stands for any sign that it lacks"
            )
            return [f"the tokenizer does not know this text's script: {which}. {way_out}"]
        if (a_byte := len(ids) / len(text.encode())) < CUT_INTO_BYTES:
            return []
        a_character = len(ids) / len(text)
        return [
            f"the tokenizer does not know this text's script: it takes {a_character:.1f} tokens for a character, "
            f"{a_byte:.2f} for a byte (of English it takes about 0.25), so that a block holds little text and training "
            f"is slow. {way_out}"
        ]

    def _about_ends(self) -> list[str]:
        """Where the template ends an answer with a sign that writing can't stop at."""
        if not self._holds_chats():
            return []
        chats = Chats(self.tokenizer, Encoder(self.tokenizer))
        if chats.end_of_turn() is not None or not (behind := chats.behind_answer().strip()):
            return []
        return [
            f"the chat template ends an answer with {behind!r}, which is no token of the tokenizer: it is learnt as "
            f"text, and what is written stops at {self.tokenizer.eos_token} alone"
        ]

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

    def _collation(self, side: str) -> Any:
        return partial(collate, block_size=self._width(side), pad_token_id=pad_token_id(self.tokenizer))

    def _batches(self, side: str, epoch: int) -> Batches:
        """An epoch's batches, made once: they are counted before they are used."""
        made, batches = self._made.get(side, (None, None))
        if batches is None or made != epoch:
            lengths, size = self.datasets[side].lengths, self.config.batch_size
            seed = self.seed if side == "train" else self.config.split_seed
            if self._batching(side) == "packed":
                batches = packed_batches(lengths, size, seed, epoch, self.config.block_size)
            else:
                pool = 1 if side == "train" and self.draws_from_all_lengths else POOL
                batches = padded_batches(lengths, size, seed, epoch, pool)
            self._made[side] = (epoch, batches)
        return batches

    def labels_of_a_batch(self) -> float:
        """How many labels a training batch has in the mean."""
        return self.datasets["train"].predicted_tokens / max(1, len(self._batches("train", 0)))

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

    def packed_example(self) -> Batch | None:
        """A row of real windows to probe a model with; None where no row can hold two."""
        dataset = max((self.datasets[side] for side in SIDES if self._width(side)), key=len)
        row = np.argsort(dataset.lengths, kind="stable")[:PROBED_WINDOWS]
        row = row[dataset.lengths[row].cumsum() <= self.config.block_size]
        if len(row) < 2:
            return None
        return collate([dataset[row.tolist()]], self.config.block_size, pad_token_id(self.tokenizer))

    def head(self) -> dict[str, Any]:
        """What of a model's config the data decides: of language models nothing."""
        return {}

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
    token: int = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    return token or 0
