"""The data of the tasks beside the language model.

... --splitting--> train | val | test --labelling--> classes --encoding--> tokens on the disk
    --examples--> a text, a sentence, a pair or a masked window --sampling--> rows of a batch, padded
    --> the task's training_step
"""

from functools import partial
from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy

from domaintune.config.schema import DataConfig
from domaintune.data.accounting import ExampleAccount, account_of_examples
from domaintune.data.collating import IGNORED
from domaintune.data.datamodule import TextDataModule, pad_token_id
from domaintune.data.encoder import specials_of
from domaintune.data.examples import (
    Example,
    ExampleDataset,
    MaskedTokens,
    Pairs,
    TextLabels,
    WordTags,
    collate_examples,
    collate_in_parts,
)
from domaintune.data.labelling import Labels
from domaintune.data.sampling import EpochIndexSampler
from domaintune.data.splitting import Splits
from domaintune.data.tokenizing import Tokens, tokenize_examples
from domaintune.errors import UsageError

# How many tokens a pass through a model costs beside those in it. On a CPU that is mostly the gradient of all
# embeddings (measured on MiniLM), on a GPU the start of each kernel.
PASS_TOKENS = {"cpu": 128, "cuda": 4096}
FEWEST_TOKENS = 2  # of a window, special tokens not counted


class ExampleDataModule(TextDataModule):
    """Examples of labels, entities or pairs, one a row, padded.

    Training batches are drawn from all lengths: where each has sentences of like lengths, the words of short ones weigh
    more than others, since a step's loss is a mean over its words. Rows of like lengths go through the model together.

    Args:
        config, splits, tokenizer, seed, cache: as those of TextDataModule; a tokenizer needs no end-of-text token.
        labels: of the documents, for labels and entities.

    Raises:
        UsageError: a block has no room for more than special tokens.
    """

    for_decoders = False
    draws_from_all_lengths = True
    order = 2

    def __init__(
        self, config: DataConfig, splits: Splits, tokenizer: Any, seed: int, cache: str, labels: Labels | None = None
    ) -> None:
        self.labels, self.specials = labels, specials_of(tokenizer)
        for name, size in (("block_size", config.block_size), ("target_size", config.target_size)):
            if size < len(self.specials) + FEWEST_TOKENS:
                raise UsageError(f"data.{name}={size}: {len(self.specials)} of them are special tokens; take more")
        super().__init__(config, splits, tokenizer, seed, cache)
        if labels is not None:
            self.labels = labels.counted_anew(self.splits)

    def _encode(self, cache: str) -> Tokens:
        return tokenize_examples(self.splits.documents, self.tokenizer, self.config, cache)

    def _dataset(self, side: str) -> ExampleDataset:
        given = (self.tokens, self.splits.of(side), self.specials, self.config.block_size)
        if self.config.format == "pairs":
            return Pairs(*given, target_size=self.config.target_size)
        assert self.labels is not None
        if self.config.format == "labels":
            return TextLabels(*given, label_of=self.labels.of)
        return WordTags(*given, tags=self.labels.of, words=self.labels.words)

    def _account(self, side: str) -> ExampleAccount:
        counts = self.labels.counts[side] if self.labels is not None else {}
        cost = self._pass_tokens() if side == "train" else None
        return account_of_examples(self.datasets[side], self._batches(side, 0), cost, counts)

    def _collation(self, side: str) -> Any:
        return partial(
            partial(collate_in_parts, pass_tokens=self._pass_tokens()) if side == "train" else collate_examples,
            nothing=self._nothing(),
            pad_token_id=pad_token_id(self.tokenizer),
            reads_labels=self.config.format == "pairs",
        )

    def _pass_tokens(self) -> int | None:
        if self.trainer is None:
            return PASS_TOKENS["cpu"]
        if isinstance(self.trainer.strategy, ModelParallelStrategy):
            return None  # split weights are gathered in each pass: all devices do the same number of them
        return PASS_TOKENS.get(self.trainer.strategy.root_device.type, PASS_TOKENS["cuda"])

    def _nothing(self) -> Example:
        """An example of one token that no label counts for."""
        shape: tuple[int, ...] = (1,)
        if self.labels is not None and self.config.format == "labels":
            shape = (len(self.labels.names),) if self.labels.several else ()
        several = self.labels is not None and self.labels.several
        labels = torch.full(shape, IGNORED, dtype=torch.float32 if several else torch.int64)
        return {"input_ids": torch.tensor([pad_token_id(self.tokenizer)]), "labels": labels, "window": -1}

    def probe(self) -> dict[str, torch.Tensor]:
        example = self.datasets["val"].example(0)
        ids = example["input_ids"][None]
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        return {**inputs, "labels": example["labels"][None]} if self.config.format == "pairs" else inputs

    def head(self) -> dict[str, Any]:
        """What of a model's config the labels decide."""
        if self.labels is None:
            return {}
        names = dict(enumerate(self.labels.names))
        several = "multi_label_classification" if self.labels.several else "single_label_classification"
        return {
            "num_labels": len(names),
            "id2label": names,
            "label2id": {name: number for number, name in names.items()},
            **({"problem_type": several} if self.config.format == "labels" else {}),
        }


class MaskedDataModule(ExampleDataModule):
    """Windows of plain text, some of whose tokens are masked, anew in every epoch.

    Args:
        mask_fraction: of the tokens.
        config, splits, tokenizer, seed, cache: as those of ExampleDataModule.
    """

    sampler = EpochIndexSampler

    def __init__(
        self, config: DataConfig, splits: Splits, tokenizer: Any, seed: int, cache: str, mask_fraction: float
    ) -> None:
        self.mask_fraction = mask_fraction
        super().__init__(config, splits, tokenizer, seed, cache)

    def _dataset(self, side: str) -> MaskedTokens:
        return MaskedTokens(
            self.tokens,
            self.splits.of(side),
            self.specials,
            self.config.block_size,
            fraction=self.mask_fraction,
            mask_id=self.tokenizer.mask_token_id,
            vocabulary=len(self.tokenizer),
            # What is validated on is masked alike for every seed.
            seed=self.seed if side == "train" else self.config.split_seed,
        )
