"""The data of the tasks beside the language model.

... --splitting--> train | val | test --labelling--> classes --tokenizing--> tokens on the disk
    --examples--> a text, a sentence, a pair or a masked window --batching--> rows, padded
    --> the task's training_step
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy

from domaintune.config.schema import DataConfig
from domaintune.data.accounting import ExampleAccount, account_of_examples
from domaintune.data.batching import POOL, Batches, EpochIndexSampler, EpochSampler, padded_batches
from domaintune.data.datamodule import EncodedDataModule, check_left, leave_out_empty, pad_token_id
from domaintune.data.documents import SIDES
from domaintune.data.encoder import specials_of
from domaintune.data.examples import Example, ExampleDataset, collate_examples, collate_in_parts
from domaintune.data.labelling import Labels
from domaintune.data.splitting import Splits
from domaintune.data.text_notes import notes_on_marks, notes_on_script
from domaintune.data.tokenizing import tokenize_examples
from domaintune.errors import UsageError

# How many tokens a pass through a model costs beside those in it. On a CPU that is mostly the gradient of all
# embeddings (measured on MiniLM), on a GPU the start of each kernel.
PASS_TOKENS = {"cpu": 128, "cuda": 4096}
FEWEST_TOKENS = 2  # of a window, special tokens not counted


class ExampleDataModule(EncodedDataModule):
    """Examples of labels, entities, pairs or masked text, one a row, padded.

    Training batches are drawn from all lengths: where each has sentences of like lengths, the words of short ones weigh
    more than others, since a step's loss is a mean over its words. Rows of like lengths go through the model together.

    Args:
        config: the `data` group of the config.
        splits: the documents, read and split.
        tokenizer: a fast tokenizer; it needs no end-of-text token.
        seed: of the order of the training batches.
        cache: the folder of the token cache.
        make_examples: makes the examples of a side, of what an ExampleDataset takes, and the side's name as `side`.
        labels: of the documents, for labels and entities.

    Raises:
        UsageError: a block has no room for more than special tokens, or nothing is left to train on or to measure; with
            `data.strict=true`, a document can't be used.
    """

    order = 2

    def __init__(
        self,
        config: DataConfig,
        splits: Splits,
        tokenizer: Any,
        seed: int,
        cache: str,
        make_examples: Callable[..., ExampleDataset],
        labels: Labels | None = None,
    ) -> None:
        specials = specials_of(tokenizer)
        for name, size in (("block_size", config.block_size), ("target_size", config.target_size)):
            if size < len(specials) + FEWEST_TOKENS:
                raise UsageError(f"data.{name}={size}: {len(specials)} of them are special tokens; take more")
        tokens = tokenize_examples(splits.documents, tokenizer, config, cache)
        left = leave_out_empty(splits, tokens, config.strict)
        datasets = {
            side: make_examples(tokens, left.of(side), specials, config.block_size, side=side) for side in SIDES
        }
        check_left(splits, left, datasets)
        super().__init__(config, left, tokenizer, seed, tokens, datasets)
        self.sampler = EpochIndexSampler if datasets["train"].is_drawn else EpochSampler
        self.labels = labels and replace(labels, counts=labels.counts_of(left))

    def probe(self) -> dict[str, torch.Tensor]:
        example = self.datasets["val"].example(0)
        ids = example["input_ids"][None]
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        return {**inputs, "labels": example["labels"][None]} if self.datasets["val"].reads_labels else inputs

    def notes(self) -> list[str]:
        documents, is_text = self.splits.documents, self.config.format == "text"
        return [
            *(notes_on_marks(self.config, documents, self.tokens, self.tokenizer) if is_text else []),
            *notes_on_script(self.config, documents, self.tokenizer, for_decoders=False),
        ]

    def _account(self, side: str) -> ExampleAccount:
        counts = self.labels.counts[side] if self.labels is not None else {}
        cost = self._pass_tokens() if side == "train" else None
        return account_of_examples(self.datasets[side], self._batches(side, 0), cost, counts)

    def _collation(self, side: str) -> Any:
        pad = pad_token_id(self.tokenizer)
        dataset = self.datasets[side]
        nothing: Example = {"input_ids": torch.tensor([pad]), "labels": dataset.nothing, "window": -1}
        return partial(
            partial(collate_in_parts, pass_tokens=self._pass_tokens()) if side == "train" else collate_examples,
            nothing=nothing,
            pad_token_id=pad,
            reads_labels=dataset.reads_labels,
        )

    def _make_batches(self, side: str, seed: int, epoch: int) -> Batches:
        pool = 1 if side == "train" else POOL
        return padded_batches(self.datasets[side].lengths, self.config.batch_size, seed, epoch, pool)

    def _pass_tokens(self) -> int | None:
        if self.trainer is None:
            return PASS_TOKENS["cpu"]
        if isinstance(self.trainer.strategy, ModelParallelStrategy):
            return None  # split weights are gathered in each pass: all devices do the same number of them
        return PASS_TOKENS.get(self.trainer.strategy.root_device.type, PASS_TOKENS["cuda"])
