import copy
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GPT2LMHeadModel, pipeline

from domaintune.config.schema import PeftConfig
from domaintune.data.tokenizing import tokenizer_sha256
from domaintune.errors import UsageError
from domaintune.models import adapters
from domaintune.models.adapters import add_adapters, merge_adapters
from domaintune.models.exporting import export, rehearse_export
from domaintune.models.heads import Head
from domaintune.tasks.causal_lm import CausalLM

PROBE = torch.arange(2, 42)[None]


@pytest.fixture
def tokenizer(tokenizer: Any) -> Any:
    """Its own copy: an export gives it a padding token."""
    return copy.deepcopy(tokenizer)


def made(tokenizer: Any, seed: int = 0) -> GPT2LMHeadModel:
    return tiny.gpt2(vocab_size=len(tokenizer), seed=seed).train()


def loss(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=PROBE, labels=PROBE).loss


def test_plain_transformers_opens_it_with_the_same_loss(tmp_path: Path, tokenizer: Any) -> None:
    model = made(tokenizer)
    export(model, tokenizer, tmp_path / "export", "card", {"input_ids": PROBE}, CausalLM.head)
    assert loss(AutoModelForCausalLM.from_pretrained(tmp_path / "export")) == loss(model)


def test_the_tokenizer_comes_with_it(tmp_path: Path, tokenizer: Any) -> None:
    export(made(tokenizer), tokenizer, tmp_path / "export", "card", {"input_ids": PROBE}, CausalLM.head)
    opened = AutoTokenizer.from_pretrained(tmp_path / "export")
    assert opened("some text")["input_ids"] == tokenizer("some text")["input_ids"]


def test_it_holds_safetensors_generation_config_and_card(tmp_path: Path, tokenizer: Any) -> None:
    export(made(tokenizer), tokenizer, tmp_path / "export", "the card", {"input_ids": PROBE}, CausalLM.head)
    names = {file.name for file in (tmp_path / "export").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "generation_config.json"} < names
    assert not any(name.endswith((".bin", ".pt", ".pkl")) for name in names)
    assert (tmp_path / "export" / "README.md").read_text() == "the card"
    assert GenerationConfig.from_pretrained(tmp_path / "export").pad_token_id == tokenizer.eos_token_id


def test_an_older_export_is_replaced(tmp_path: Path, tokenizer: Any) -> None:
    old, new = made(tokenizer, seed=1), made(tokenizer, seed=2)
    export(old, tokenizer, tmp_path / "export", "old", {"input_ids": PROBE}, CausalLM.head)
    (tmp_path / "export" / "left.txt").touch()
    export(new, tokenizer, tmp_path / "export", "new", {"input_ids": PROBE}, CausalLM.head)
    assert loss(AutoModelForCausalLM.from_pretrained(tmp_path / "export")) == loss(new)
    assert not (tmp_path / "export" / "left.txt").exists()


def test_nothing_temporary_is_left(tmp_path: Path, tokenizer: Any) -> None:
    export(made(tokenizer), tokenizer, tmp_path / "export", "card", {"input_ids": PROBE}, CausalLM.head)
    assert [file.name for file in tmp_path.iterdir()] == ["export"]


def test_the_mode_is_as_it_was(tmp_path: Path, tokenizer: Any) -> None:
    model = made(tokenizer)
    export(model, tokenizer, tmp_path / "export", "card", {"input_ids": PROBE}, CausalLM.head)
    assert model.training


@pytest.fixture
def wrong(tokenizer: Any) -> GPT2LMHeadModel:
    """A model that saves another one's weights."""
    model, other = made(tokenizer, seed=1), made(tokenizer, seed=2)
    model.save_pretrained = other.save_pretrained
    return model


def test_a_wrong_export_is_not_passed_off_as_right(tmp_path: Path, tokenizer: Any, wrong: GPT2LMHeadModel) -> None:
    with pytest.raises(RuntimeError, match="opens to another model: its answers"):
        export(wrong, tokenizer, tmp_path / "export", "card", {"input_ids": PROBE}, CausalLM.head)
    assert not (tmp_path / "export").exists()


def test_a_wrong_export_leaves_the_older_one_and_nothing_else(
    tmp_path: Path, tokenizer: Any, wrong: GPT2LMHeadModel
) -> None:
    old = made(tokenizer)
    export(old, tokenizer, tmp_path / "export", "card", {"input_ids": PROBE}, CausalLM.head)
    with pytest.raises(RuntimeError):
        export(wrong, tokenizer, tmp_path / "export", "card", {"input_ids": PROBE}, CausalLM.head)
    assert loss(AutoModelForCausalLM.from_pretrained(tmp_path / "export")) == loss(old)
    assert [file.name for file in tmp_path.iterdir()] == ["export"]


def test_a_loss_that_is_not_a_number_is_no_export(tmp_path: Path, tokenizer: Any) -> None:
    model = made(tokenizer)
    with torch.no_grad():
        model.transformer.ln_f.weight[0] = float("nan")
    with pytest.raises(RuntimeError):
        export(model, tokenizer, tmp_path / "export", "card", {"input_ids": PROBE}, CausalLM.head)


def test_an_export_that_merging_has_changed_is_told(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As adapters of a tied output layer would, which are added to the embeddings too."""
    model = made(tokenizer)
    add_adapters(model, PeftConfig(name="lora", rank=4, alpha=8.0, dropout=0.0), seed=0, train_head=False)

    def too_much(merged: Any) -> None:
        merge_adapters(merged)
        merged.lm_head.weight.data.neg_()

    monkeypatch.setattr(adapters, "merge_adapters", too_much)
    with pytest.raises(UsageError, match="could not be exported: the export opens to another model: its answers"):
        rehearse(model, tokenizer, tmp_path)
    with pytest.raises(RuntimeError, match="opens to another model: its answers"):
        export(model, tokenizer, tmp_path / "export", "card", {"input_ids": PROBE}, CausalLM.head)


# What its users need.


def chatting(tokenizer: Any) -> Any:
    made = copy.deepcopy(tokenizer)
    made.add_special_tokens({"additional_special_tokens": ["<|im_end|>"]})
    made.chat_template = "{% for message in messages %}{{ message['content'] }}<|im_end|>\n{% endfor %}"
    return made


def exported(folder: Path, model: Any, tokenizer: Any, head: Head = CausalLM.head) -> Path:
    rehearse_export(model, tokenizer, {"input_ids": PROBE}, head, "some/model", folder)
    export(model, tokenizer, folder / "export", "card", {"input_ids": PROBE}, head)
    return folder / "export"


def test_sampling_settings_are_saved_as_what_they_mean(tmp_path: Path, tokenizer: Any) -> None:
    """As many checkpoints are published, and transformers refuses to save again once anything else has changed."""
    model = made(tokenizer)
    model.generation_config = GenerationConfig(bos_token_id=0, eos_token_id=0, temperature=0.9, top_p=0.6)
    saved = GenerationConfig.from_pretrained(exported(tmp_path, model, copy.deepcopy(tokenizer)))
    assert (saved.do_sample, saved.temperature, saved.top_p) == (True, 0.9, 0.6)


def test_settings_that_need_no_sampling_stay_without(tmp_path: Path, tokenizer: Any) -> None:
    model = made(tokenizer)
    model.generation_config = GenerationConfig(eos_token_id=0, max_new_tokens=9)
    saved = GenerationConfig.from_pretrained(exported(tmp_path, model, copy.deepcopy(tokenizer)))
    assert (saved.do_sample, saved.max_new_tokens) == (GenerationConfig().do_sample, 9)


def rehearse(model: Any, tokenizer: Any, folder: Path) -> None:
    rehearse_export(model, tokenizer, {"input_ids": PROBE}, CausalLM.head, "some/model", folder)


def test_what_can_not_be_saved_is_told_before_the_training(tmp_path: Path, tokenizer: Any) -> None:
    model = made(tokenizer)
    model.generation_config.num_return_sequences = 3  # of one beam
    own = model.generation_config
    with pytest.raises(
        UsageError, match=r"model\.checkpoint=some/model: what is trained from it could not be exported"
    ):
        rehearse(model, tokenizer, tmp_path)
    assert model.generation_config is own
    assert list(tmp_path.iterdir()) == []


def test_weights_that_can_not_be_saved_are_told_before_the_training(tmp_path: Path, tokenizer: Any) -> None:
    model = made(tokenizer)
    model.transformer.h[0].ln_1.weight = model.transformer.h[0].ln_2.weight  # which transformers does not know of
    with pytest.raises(UsageError, match="could not be exported"):
        rehearse(model, tokenizer, tmp_path)


@pytest.mark.parametrize("lora", [False, True])
def test_trying_changes_neither_model_nor_tokenizer(tmp_path: Path, tokenizer: Any, lora: bool) -> None:
    model, own = made(tokenizer), copy.deepcopy(tokenizer)
    if lora:
        add_adapters(model, PeftConfig(name="lora", rank=4, alpha=8.0, dropout=0.0), seed=0, train_head=False)
    before, weights = model.generation_config.to_dict(), copy.deepcopy(model.state_dict())
    rehearse(model, own, tmp_path)
    assert model.state_dict().keys() == weights.keys()
    assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())
    assert model.training
    assert (own.pad_token, own.padding_side) == (None, tokenizer.padding_side)
    assert model.generation_config.to_dict() == before


def test_the_ends_of_a_turn_and_of_the_checkpoint_are_in_it(tmp_path: Path, tokenizer: Any) -> None:
    chats = chatting(tokenizer)
    model = made(chats)
    model.generation_config.eos_token_id = [5, 0]
    saved = GenerationConfig.from_pretrained(exported(tmp_path, model, chats))
    assert saved.eos_token_id == [0, 5, chats.convert_tokens_to_ids("<|im_end|>")]


@pytest.mark.parametrize("lora", [False, True])
def test_a_pipeline_writes_in_batches_what_it_writes_alone(tmp_path: Path, tokenizer: Any, lora: bool) -> None:
    model = made(tokenizer)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    if lora:
        add_adapters(model, PeftConfig(name="lora", rank=4, alpha=8.0, dropout=0.0), seed=0, train_head=False)
    folder = str(exported(tmp_path, model, copy.deepcopy(tokenizer)))
    prompts = ["The quick brown fox jumps", "One", "Two of them"]
    write = pipeline("text-generation", folder, max_new_tokens=6, do_sample=False, return_full_text=False)
    alone = [write(prompt)[0]["generated_text"] for prompt in prompts]
    assert [row[0]["generated_text"] for row in write(prompts, batch_size=2)] == alone
    opened = AutoTokenizer.from_pretrained(folder)
    batch = opened(prompts, padding=True, return_tensors="pt")
    assert batch["attention_mask"][1, 0] == 0, "padding stands before a prompt"


def test_a_padding_token_of_its_own_stays(tmp_path: Path, tokenizer: Any) -> None:
    own = copy.deepcopy(tokenizer)
    own.add_special_tokens({"pad_token": "<pad>"})
    folder = exported(tmp_path, made(own), own)
    assert AutoTokenizer.from_pretrained(folder).pad_token == "<pad>"
    assert GenerationConfig.from_pretrained(folder).pad_token_id == own.pad_token_id


def test_an_exports_tokenizer_counts_as_that_of_its_base(tmp_path: Path, tokenizer: Any) -> None:
    """Else what both encode would be kept twice, and their losses would not be compared."""
    opened = AutoTokenizer.from_pretrained(exported(tmp_path, made(tokenizer), copy.deepcopy(tokenizer)))
    assert tokenizer_sha256(opened) == tokenizer_sha256(tokenizer)
