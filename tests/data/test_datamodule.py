from typing import Any

import pytest
import tiny
import torch

from domaintune.config import DataConfig
from domaintune.data.collating import IGNORED
from domaintune.data.datamodule import TextDataModule, collate
from domaintune.data.splitting import Splits, data_hash, split

TEXTS = [f"Document {number}: " + "naïve café 😀 " * (number % 7) for number in range(120)]
SPLITS = split(tiny.documents(*TEXTS), 0.2, 0.1, seed=0)


def datamodule(tokenizer: Any, seed: int = 0, **settings: Any) -> TextDataModule:
    return TextDataModule(DataConfig(**{"block_size": 16, "batch_size": 4, **settings}), SPLITS, tokenizer, seed)


def rows(loader: Any) -> list[list[list[int]]]:
    return [batch["input_ids"].tolist() for batch in loader]


@pytest.mark.parametrize("block_size", [2, 16, 512])
def test_the_predicted_bytes_are_the_same_for_every_block_size(tokenizer: Any, block_size: int) -> None:
    dataset = datamodule(tokenizer, block_size=block_size).datasets["train"]
    tokens = dataset.tokens
    of_first_tokens = tokens.byte_counts[tokens.starts[:-1]].sum()
    in_windows = sum(dataset.window(index)["bytes"] for index in range(len(dataset)))
    assert in_windows == sum(len(document.text.encode()) for document in SPLITS.train) - of_first_tokens


BOTH = pytest.mark.parametrize("batching", ["padded", "packed"])


@BOTH
def test_predicted_tokens_are_the_labels_of_an_epoch(tokenizer: Any, batching: str) -> None:
    data = datamodule(tokenizer, batching=batching)
    labels = sum(int((batch["labels"] != IGNORED).sum()) for batch in data.train_dataloader())
    tokens = data.datasets["train"].tokens
    assert labels == data.datasets["train"].predicted_tokens == len(tokens.ids) - len(SPLITS.train)


@BOTH
def test_training_goes_on_where_a_checkpoint_left_it(tokenizer: Any, batching: str) -> None:
    whole, resumed = datamodule(tokenizer, batching=batching), datamodule(tokenizer, batching=batching)
    resumed.load_state_dict({"epoch": 2, "skip": 5})
    loader = whole.train_dataloader()
    loader.batch_sampler.sampler.set_epoch(2)
    assert rows(resumed.train_dataloader()) == rows(loader)[5:]


def test_the_seed_orders_training_and_leaves_validation_alone(tokenizer: Any) -> None:
    one, other = datamodule(tokenizer, seed=1), datamodule(tokenizer, seed=2)
    assert rows(one.train_dataloader()) != rows(other.train_dataloader())
    assert rows(one.val_dataloader()) == rows(other.val_dataloader())


@BOTH
def test_worker_processes_change_nothing(tokenizer: Any, batching: str) -> None:
    alone, helped = (datamodule(tokenizer, num_workers=number, batching=batching) for number in (0, 1))
    assert rows(alone.val_dataloader()) == rows(helped.val_dataloader())


def test_making_an_epoch_leaves_the_global_random_state_alone(tokenizer: Any) -> None:
    data = datamodule(tokenizer)
    before = torch.random.get_rng_state()
    rows(data.train_dataloader())
    assert torch.equal(torch.random.get_rng_state(), before)


@BOTH
def test_a_rank_without_windows_gets_a_batch_that_predicts_nothing(batching: str) -> None:
    batch = collate([], DataConfig(block_size=4, batching=batching), pad_token_id=3)
    assert (batch["labels"] == IGNORED).all()
    assert batch["bytes"] == 0


def test_the_probed_row_holds_several_windows_of_whichever_side_has_some(tokenizer: Any) -> None:
    only_test = Splits([], [], SPLITS.train, 0)
    for splits in (SPLITS, only_test):
        config = DataConfig(block_size=64, batch_size=4, batching="packed")
        batch = TextDataModule(config, splits, tokenizer, seed=0).packed_example()
        assert batch is not None
        assert len(batch["cu_seqlens"]) > 3


def test_there_is_nothing_to_probe_where_no_row_can_hold_two_windows(tokenizer: Any) -> None:
    assert datamodule(tokenizer, block_size=3, batching="packed").packed_example() is None


def test_the_data_hash_knows_texts_and_sides_but_no_paths() -> None:
    a, b = tiny.documents("a", "b")
    moved = [Splits([a], [b], [], 0), Splits([b], [a], [], 0), Splits([a, b], [], [], 0), Splits([a], [b, a], [], 0)]
    assert len({data_hash(splits) for splits in moved}) == 4
    elsewhere = [type(document)(document.text, "elsewhere") for document in (a, b)]
    assert data_hash(Splits([elsewhere[0]], [elsewhere[1]], [], 9)) == data_hash(moved[0])
