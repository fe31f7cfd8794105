import copy
import json
import multiprocessing
import os
import re
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from tokenizers import normalizers

from domaintune.config.schema import DataConfig
from domaintune.data import language_datamodule as module
from domaintune.data.accounting import account_of
from domaintune.data.batching import IGNORED, collate
from domaintune.data.chatting import PLAIN_TEMPLATE, Segment
from domaintune.data.formats import instructions
from domaintune.data.language_datamodule import LanguageDataModule
from domaintune.data.splitting import TEST, Splits, read_splits
from domaintune.errors import UsageError

TEXTS = [f"Document {number}: " + "naïve café 😀 " * (number % 7) for number in range(120)]


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Splits:
    folder = tmp_path_factory.mktemp("data")
    config = DataConfig(path=tiny.jsonl(folder / "texts.jsonl", *TEXTS), val_fraction=0.2, test_fraction=0.1)
    return read_splits(config, str(folder / "cache"))


@pytest.fixture
def datamodule(tokenizer: Any, splits: Splits) -> Callable[..., LanguageDataModule]:
    cache = str(splits.documents.folder.parents[1])

    def made(seed: int = 0, splits: Splits = splits, **settings: Any) -> LanguageDataModule:
        config = DataConfig(**{"block_size": 16, "batch_size": 4, **settings})
        return LanguageDataModule(config, splits, tokenizer, seed, cache)

    return made


Made = Callable[..., LanguageDataModule]


def rows(loader: Any) -> list[list[list[int]]]:
    return [batch["input_ids"].tolist() for batch in loader]


def train_texts(splits: Splits) -> list[str]:
    return [splits.documents[number] for number in splits.of("train").tolist()]


@pytest.mark.parametrize("block_size", [2, 16, 512])
def test_the_predicted_bytes_are_the_same_for_every_block_size(
    datamodule: Made, splits: Splits, block_size: int
) -> None:
    data = datamodule(block_size=block_size)
    dataset = data.datasets["train"]
    of_first_tokens = sum(int(data.tokens.byte_counts(first, first + 1)[0]) for first in dataset.firsts.tolist())
    in_windows = sum(dataset.window(index)["bytes"] for index in range(len(dataset)))
    assert in_windows == sum(len(text.encode()) for text in train_texts(splits)) - of_first_tokens


BOTH = pytest.mark.parametrize("batching", ["padded", "packed"])


@BOTH
def test_predicted_tokens_are_the_labels_of_an_epoch(datamodule: Made, batching: str) -> None:
    data = datamodule(batching=batching)
    labels = sum(int((batch["labels"] != IGNORED).sum()) for batch in data.train_dataloader())
    account = data.accounts()["train"]
    assert labels == account.predicted_tokens == account.tokens - account.documents


@BOTH
def test_training_goes_on_where_a_checkpoint_left_it(datamodule: Made, batching: str) -> None:
    whole, resumed = datamodule(batching=batching), datamodule(batching=batching)
    resumed.load_state_dict({"epoch": 2, "skip": 5, "world_size": 1})
    loader = whole.train_dataloader()
    loader.batch_sampler.sampler.set_epoch(2)
    assert rows(resumed.train_dataloader()) == rows(loader)[5:]


def test_with_other_processes_than_before_it_is_refused(datamodule: Made) -> None:
    with pytest.raises(UsageError, match="had 2 processes and now has 1"):
        datamodule().load_state_dict({"epoch": 0, "skip": 5, "world_size": 2})


def test_batches_of_an_earlier_version_are_not_gone_on_with(datamodule: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    made = datamodule()
    monkeypatch.setattr(made, "order", 2)
    made.load_state_dict({"epoch": 1, "skip": 0, "world_size": 1})
    with pytest.raises(UsageError, match=r"in the middle of an epoch by an earlier version.* fresh=true"):
        made.load_state_dict({"epoch": 1, "skip": 5, "world_size": 1})
    made.load_state_dict({"epoch": 1, "skip": 5, "world_size": 1, "order": 2})


def test_the_seed_orders_training_and_leaves_validation_alone(datamodule: Made) -> None:
    one, other = datamodule(seed=1), datamodule(seed=2)
    assert rows(one.train_dataloader()) != rows(other.train_dataloader())
    assert rows(one.val_dataloader()) == rows(other.val_dataloader())


@BOTH
def test_worker_processes_change_nothing(datamodule: Made, batching: str) -> None:
    alone, helped = (datamodule(num_workers=number, batching=batching) for number in (0, 1))
    assert rows(alone.val_dataloader()) == rows(helped.val_dataloader())


def test_making_an_epoch_leaves_the_global_random_state_alone(datamodule: Made) -> None:
    data = datamodule()
    before = torch.random.get_rng_state()
    rows(data.train_dataloader())
    assert torch.equal(torch.random.get_rng_state(), before)


@BOTH
def test_a_rank_without_windows_gets_a_batch_that_predicts_nothing(batching: str) -> None:
    batch = collate([], 4 if batching == "packed" else None, pad_token_id=3)
    assert (batch["labels"] == IGNORED).all()
    assert batch["bytes"] == 0


def test_the_probed_row_holds_several_windows_of_whichever_side_has_some(datamodule: Made, splits: Splits) -> None:
    only_test = replace(splits, side=np.full_like(splits.side, TEST))
    for sides in (splits, only_test):
        batch = datamodule(splits=sides, block_size=64).packed_example()
        assert batch is not None
        assert len(batch["cu_seqlens"]) > 3


def test_there_is_nothing_to_probe_where_no_row_can_hold_two_windows(datamodule: Made) -> None:
    assert datamodule(block_size=3, batching="packed").packed_example() is None


def read_back(data: LanguageDataModule, side: str = "train") -> list[int]:
    """The token ids of all windows in their order, each window without the token it shares with the one before."""
    dataset = data.datasets[side]
    ids = [dataset.window(index)["input_ids"].tolist() for index in range(len(dataset))]
    return [ids[0][0], *(token for window in ids for token in window[1:])]


def test_concatenated_windows_are_the_documents_end_to_end(datamodule: Made) -> None:
    data = datamodule(batching="concatenated")
    train = data.datasets["train"]
    expected = [
        token
        for first, end in zip(train.firsts.tolist(), train.ends.tolist(), strict=True)
        for token in data.tokens.ids(first, end).tolist()
    ]
    assert read_back(data) == expected
    assert (train.lengths[:-1] == 16).all()
    assert data.accounts()["train"].context_tokens == 1
    batch = next(iter(data.train_dataloader()))
    assert "cu_seqlens" not in batch


def test_concatenated_training_is_validated_document_by_document(datamodule: Made) -> None:
    one, other = datamodule(batching="concatenated"), datamodule(batching="packed")
    assert rows(one.val_dataloader()) == rows(other.val_dataloader())


@pytest.mark.parametrize("batching", ["padded", "packed", "concatenated"])
def test_the_account_counts_what_the_batches_hold(datamodule: Made, batching: str) -> None:
    data = datamodule(batching=batching)
    account = data.accounts()["train"]
    batches = list(data.train_dataloader())
    places = sum(batch["input_ids"].numel() for batch in batches)
    labels = sum(int((batch["labels"] != IGNORED).sum()) for batch in batches)
    assert account.batches == len(batches)
    assert account.labelled == labels / account.tokens
    assert account.packing_efficiency + account.padding == pytest.approx(1)
    assert account.packing_efficiency == int(data.datasets["train"].lengths.sum()) / places


def test_the_account_refuses_an_epoch_that_misses_a_window(datamodule: Made) -> None:
    data = datamodule()
    batches = data._batches("train", 0)
    twice = replace(batches, windows=np.where(batches.windows == 3, 4, batches.windows))
    with pytest.raises(RuntimeError, match="every window exactly once"):
        account_of(data.datasets["train"], twice, 16)


def test_the_account_refuses_a_lost_token(datamodule: Made) -> None:
    data = datamodule()
    data.datasets["train"].labels[7] -= 1
    with pytest.raises(RuntimeError, match=r"tokens have a label, and the windows predict"):
        data.accounts()


def test_an_epochs_batches_are_made_once(datamodule: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    real = module.packed_batches
    monkeypatch.setattr(module, "packed_batches", lambda *args: made.append(args[3]) or real(*args))
    data = datamodule(batching="packed")
    data.account()
    loader = data.train_dataloader()
    for epoch in (0, 1):
        loader.batch_sampler.sampler.set_epoch(epoch)
        assert len(list(loader)) == len(loader)
    assert sorted(made) == [0, 0, 0, 1]  # three sides, and the second epoch


# Instructions.


def test_the_account_names_what_was_left_out_and_messages_that_nothing_is_learnt_from(
    tokenizer: Any, tmp_path: Path
) -> None:
    tokenizer = copy.deepcopy(tokenizer)
    chats = [[("user", f"{n}?"), ("assistant", f"{n}."), ("user", "Thanks.")] for n in range(60)]
    chats[3], chats[5] = [("user", "3?")], [("narrator", "5?"), ("assistant", "5.")]
    made = [{"messages": [{"role": role, "content": text} for role, text in chat]} for chat in chats]
    path = tiny.jsonl(tmp_path / "chats.jsonl", *made)
    config = DataConfig(path=path, format="instructions", block_size=64, val_fraction=0.2)
    splits = read_splits(config, str(tmp_path / "cache"))
    account = LanguageDataModule(config, splits, tokenizer, 0, str(tmp_path / "cache")).account()
    assert account["documents_read"] == 60
    assert {reason: (each["rows"], each["places"]) for reason, each in account["left_out"].items()} == {
        "no answer": (1, [f"{path}:4"]),
        "unknown role": (1, [f"{path}:6"]),
    }
    assert account["messages_after_last_answer"] == 58
    assert sum(account[side]["documents"] for side in ("train", "val", "test")) == 58


ROWS = [{"prompt": f"What is {number} and one?", "completion": f" It is {number + 1}."} for number in range(60)]


@pytest.fixture
def instructed(tmp_path: Path, tokenizer: Any) -> Callable[..., LanguageDataModule]:
    def made(*rows: dict[str, Any], **settings: Any) -> LanguageDataModule:
        path = tiny.jsonl(tmp_path / "rows.jsonl", *rows)
        config = DataConfig(format="instructions", path=path, **{"block_size": 64, "batch_size": 4, **settings})
        cache = str(tmp_path / "cache")
        return LanguageDataModule(config, read_splits(config, cache), copy.deepcopy(tokenizer), 0, cache)

    return made


@BOTH
@pytest.mark.parametrize("block_size", [8, 64])
def test_only_answers_have_labels_and_every_token_is_accounted_for(
    instructed: Callable[..., LanguageDataModule], tokenizer: Any, batching: str, block_size: int
) -> None:
    data = instructed(*ROWS, batching=batching, block_size=block_size)
    learnt = sorted(
        token for batch in data.train_dataloader() for token in batch["labels"][batch["labels"] != IGNORED].tolist()
    )
    answers = [data.splits.documents[number]["completion"] for number in data.splits.of("train").tolist()]
    encoded = [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in answers]
    assert learnt == sorted(token for one in encoded for token in one)
    account = data.accounts()["train"]
    assert account.predicted_tokens == len(learnt)
    assert account.tokens == account.predicted_tokens + account.context_tokens + account.dropped_tokens
    assert account.dropped_tokens == 0 or block_size == 8


def test_the_bytes_of_a_window_are_those_of_its_answers(instructed: Callable[..., LanguageDataModule]) -> None:
    data = instructed(*ROWS)
    dataset = data.datasets["train"]
    answers = [data.splits.documents[number]["completion"] for number in dataset.documents.tolist()]
    assert [dataset.window(index)["bytes"] for index in range(len(dataset))] == [len(text) for text in answers]


def test_a_side_without_any_label_is_told_with_its_rows(
    instructed: Callable[..., LanguageDataModule], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a template gives every answer back as context."""
    monkeypatch.setattr(instructions, "_sequences", lambda row, _: [[Segment(row["prompt"], learnt=False)]])
    with pytest.raises(UsageError, match=r"no token of the train side has a label.*rows\.jsonl:\d+, .*rows\.jsonl:\d+"):
        instructed(*ROWS)


def test_chats_give_a_plain_template_to_a_tokenizer_without_one(instructed: Callable[..., LanguageDataModule]) -> None:
    chats = [
        {"messages": [{"role": "user", "content": f"{row['prompt']}"}, {"role": "assistant", "content": "Yes."}]}
        for row in ROWS
    ]
    assert instructed(*chats).tokenizer.chat_template == PLAIN_TEMPLATE
    assert instructed(*ROWS).tokenizer.chat_template is None


@pytest.mark.parametrize("block_size", [8, 24, 64])
def test_an_answer_after_a_long_prompt_keeps_as_much_of_it_as_fits(
    instructed: Callable[..., LanguageDataModule], block_size: int
) -> None:
    rows = [
        {"prompt": "word " * (20 + number) + f"{number}?", "completion": " The answer is this."} for number in range(60)
    ]
    data = instructed(*rows, block_size=block_size)
    account, dataset = data.accounts()["train"], data.datasets["train"]
    assert account.tokens == account.predicted_tokens + account.context_tokens + account.dropped_tokens
    assert account.context_tokens + account.predicted_tokens <= int(dataset.lengths.sum())
    for index in range(len(dataset)):
        labels = dataset.window(index)["labels"] != IGNORED
        before = int(labels.int().argmax())
        assert before >= block_size // 2 or before > 20  # half a block, or the whole prompt
        assert len(labels) <= block_size
    seen = sum(int((dataset.window(index)["labels"] != IGNORED).sum()) for index in range(len(dataset)))
    assert seen == account.predicted_tokens == dataset.count_labels()


def test_a_template_is_given_where_chats_follow_pairs(instructed: Callable[..., LanguageDataModule]) -> None:
    chat = {"messages": [{"role": "user", "content": "One?"}, {"role": "assistant", "content": "Two."}]}
    assert instructed(*ROWS, chat).tokenizer.chat_template == PLAIN_TEMPLATE


CHATML = (
    "{% for message in messages %}{{ '<' + message['role'] + '>' + message['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)


def talk(number: int, turns: int = 1) -> dict[str, Any]:
    messages = [[{"role": "user", "content": f"{number}?"}, {"role": "assistant", "content": f"{number}!"}]] * turns
    return {"messages": [message for turn in messages for message in turn]}


@pytest.fixture
def chatting(tokenizer: Any) -> Callable[..., LanguageDataModule]:
    def made(folder: Path, template: str, *rows: dict[str, Any], **settings: Any) -> LanguageDataModule:
        config = DataConfig(format="instructions", path=tiny.jsonl(folder / "rows.jsonl", *rows), **settings)
        own = copy.deepcopy(tokenizer)
        own.chat_template = template
        return LanguageDataModule(config, read_splits(config, str(folder / "cache")), own, 0, str(folder / "cache"))

    return made


REFUSES = "{% if messages | length > 2 %}{{ raise_exception('one turn only') }}{% endif %}" + CHATML


def test_chats_that_the_template_refuses_are_left_out_and_counted(
    tmp_path: Path, chatting: Callable[..., LanguageDataModule]
) -> None:
    data = chatting(tmp_path, REFUSES, *(talk(number, 1 + (number % 10 == 1)) for number in range(80)))
    file = tmp_path / "rows.jsonl"
    assert data.account()["left_out"] == {
        "refused by the chat template": {
            "rows": 8,
            "places": [f"{file}:{line}" for line in (2, 12, 22, 32, 42)],
            "why": "the chat template refuses it: one turn only",
        }
    }
    assert sum(len(data.splits.of(side)) for side in ("train", "val", "test")) == 72
    assert data.account()["documents_read"] == 80


def test_strictly_a_chat_that_the_template_refuses_ends_the_run(
    tmp_path: Path, chatting: Callable[..., LanguageDataModule]
) -> None:
    rows = [talk(number, 1 + (number == 7)) for number in range(80)]
    with pytest.raises(UsageError, match=r"rows\.jsonl:8: the chat template refuses it: one turn only"):
        chatting(tmp_path, REFUSES, *rows, strict=True)


def test_a_set_that_the_template_refuses_as_a_whole_is_refused_with_the_account(
    tmp_path: Path, chatting: Callable[..., LanguageDataModule]
) -> None:
    match = r"nothing is left of the train side; left out are refused by the chat template 30 \(.*one turn only"
    with pytest.raises(UsageError, match=match):
        chatting(tmp_path, REFUSES, *(talk(number, 2) for number in range(30)))


def test_the_answers_of_a_chat_that_its_template_rewrites_do_not_see_each_other(
    tmp_path: Path, chatting: Callable[..., LanguageDataModule]
) -> None:
    data = chatting(tmp_path, "{{ messages | length }}" + CHATML, *(talk(number, 3) for number in range(40)))
    train, account = data.datasets["train"], data.accounts()["train"]
    assert account.documents == len(data.splits.of("train"))
    assert len(train) == account.windows == 3 * account.documents
    shown = [data.tokenizer.decode(train.window(index)["input_ids"]) for index in range(3)]
    number = data.splits.documents[train.documents_of(0)[0]]["messages"][0]["content"][:-1]
    turn = f"<user>{number}?\n<assistant>{number}!\n"
    end = data.tokenizer.eos_token
    assert shown == [f"{1 + 2 * at}{turn * (at + 1)}{end}" for at in range(3)]
    measured = np.ones((len(train), 2))
    by_document = data.by_document("train", measured)
    assert by_document["tokens"].tolist() == [3] * account.documents
    assert by_document["hash"].tolist() == data.splits.documents.hashes[data.splits.of("train")].tolist()


@pytest.mark.parametrize(("every", "noted"), [(1, True), (20, True), (30, False)])
def test_texts_that_hold_the_end_of_text_token_are_noted(
    tmp_path: Path, tokenizer: Any, every: int, noted: bool
) -> None:
    end = tokenizer.eos_token
    texts = [f"text {number}{end * (number % every == 0)}" for number in range(60)]
    for marks, way_out in ((None, "; data.marks=end ends a document there"), ("end", "")):
        config = DataConfig(path=tiny.jsonl(tmp_path / "a.jsonl", *texts), marks=marks)
        data = LanguageDataModule(config, read_splits(config, str(tmp_path)), tokenizer, 0, str(tmp_path))
        number = len([text for text in texts if end in text])
        note = f"{number} of 60 texts hold {end}, which stays plain text{way_out}"
        assert data.notes() == [note] * noted


def test_one_text_about_the_end_of_text_token_is_no_note(tmp_path: Path, tokenizer: Any) -> None:
    texts = [f"text {number}" + tokenizer.eos_token * (number == 0) for number in range(12)]
    config = DataConfig(path=tiny.jsonl(tmp_path / "a.jsonl", *texts), val_fraction=0.5)
    assert LanguageDataModule(config, read_splits(config, str(tmp_path)), tokenizer, 0, str(tmp_path)).notes() == []


def test_texts_of_no_token_are_left_out_and_counted(tmp_path: Path, tokenizer: Any) -> None:
    dropping = copy.deepcopy(tokenizer)
    dropping.backend_tokenizer.normalizer = normalizers.Replace("\u200b", "")
    path = tiny.jsonl(tmp_path / "a.jsonl", *(f"text {number}" for number in range(40)), "\u200b", "\u200b\u200b")
    config = DataConfig(path=path)
    cache = str(tmp_path / "cache")
    data = LanguageDataModule(config, read_splits(config, cache), dropping, 0, cache)
    assert data.account()["left_out"]["no tokens"] == {
        "rows": 2,
        "places": [f"{path}:41", f"{path}:42"],
        "why": "the tokenizer makes no token of it",
    }
    config.strict = True
    with pytest.raises(UsageError, match=r"a\.jsonl:41: the tokenizer makes no token of it"):
        LanguageDataModule(config, read_splits(config, cache), dropping, 0, cache)


def test_workers_leave_signals_to_the_process_that_needs_them(datamodule: Made) -> None:
    """A terminal and a scheduler send them to all processes of a group."""
    data = datamodule(num_workers=2)
    batches = iter(data.train_dataloader())
    seen = [next(batches), next(batches)]  # one of each worker: both have begun
    for worker in multiprocessing.active_children():
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            os.kill(int(worker.pid or 0), number)
    seen += list(batches)
    assert len(seen) == len(data.train_dataloader()) > 8


CHINESE = "床前明月光疑是地上霜舉頭望明月低頭思故鄉春眠不覺曉處處聞啼鳥夜來風雨聲花落知多少"


def test_the_script_of_chats_is_that_of_their_words(tmp_path: Path, tokenizer: Any) -> None:
    chat = [{"role": "user", "content": "今天天氣如何？"}, {"role": "assistant", "content": "晴天。"}]
    rows = tmp_path / "chats.jsonl"
    rows.write_text("".join(json.dumps({"messages": chat, "id": each}) + "\n" for each in range(40)))
    config = DataConfig(path=str(rows), format="instructions", dedup="none")
    data = LanguageDataModule(config, read_splits(config, str(tmp_path)), tokenizer, 0, str(tmp_path))
    assert ["does not know this text's script" in note for note in data.notes()].count(True) == 1


@pytest.mark.parametrize(
    ("text", "noted"),
    [(CHINESE, True), ("The moon shines before my bed. " * 3, False), (CHINESE[:4] + "moon " * 20, False)],
)
def test_a_tokenizer_that_does_not_know_the_script_is_told(
    tmp_path: Path, tokenizer: Any, text: str, noted: bool
) -> None:
    texts = [f"{number % 10}{text[number % 7 :]}" for number in range(40)]
    config = DataConfig(path=tiny.jsonl(tmp_path / "a.jsonl", *texts), dedup="none")
    notes = LanguageDataModule(config, read_splits(config, str(tmp_path)), tokenizer, 0, str(tmp_path)).notes()
    assert [("does not know this text's script" in note) for note in notes] == [True] * noted
    for note in notes:
        a_character, a_byte = map(float, re.findall(r"(\d\.\d+) (?:tokens )?for a", note))
        assert 2 < a_character < 3.1
        assert 0.7 < a_byte <= 1
