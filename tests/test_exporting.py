from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GPT2LMHeadModel

from domaintune.exporting import export
from domaintune.models import adapters
from domaintune.models.adapters import add_adapters, merge_adapters
from domaintune.settings import PeftConfig

PROBE = torch.arange(2, 42)[None]


def made(tokenizer: Any, seed: int = 0) -> GPT2LMHeadModel:
    return tiny.gpt2(vocab_size=len(tokenizer), seed=seed).train()


def loss(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=PROBE, labels=PROBE).loss


def test_plain_transformers_opens_it_with_the_same_loss(tmp_path: Path, tokenizer: Any) -> None:
    model = made(tokenizer)
    export(model, tokenizer, tmp_path / "export", "card", {"input_ids": PROBE})
    assert loss(AutoModelForCausalLM.from_pretrained(tmp_path / "export")) == loss(model)


def test_the_tokenizer_comes_with_it(tmp_path: Path, tokenizer: Any) -> None:
    export(made(tokenizer), tokenizer, tmp_path / "export", "card", {"input_ids": PROBE})
    opened = AutoTokenizer.from_pretrained(tmp_path / "export")
    assert opened("some text")["input_ids"] == tokenizer("some text")["input_ids"]


def test_it_holds_safetensors_generation_config_and_card(tmp_path: Path, tokenizer: Any) -> None:
    export(made(tokenizer), tokenizer, tmp_path / "export", "the card", {"input_ids": PROBE})
    names = {file.name for file in (tmp_path / "export").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "generation_config.json"} < names
    assert not any(name.endswith((".bin", ".pt", ".pkl")) for name in names)
    assert (tmp_path / "export" / "README.md").read_text() == "the card"
    assert GenerationConfig.from_pretrained(tmp_path / "export").pad_token_id == tokenizer.eos_token_id


def test_an_older_export_is_replaced(tmp_path: Path, tokenizer: Any) -> None:
    old, new = made(tokenizer, seed=1), made(tokenizer, seed=2)
    export(old, tokenizer, tmp_path / "export", "old", {"input_ids": PROBE})
    (tmp_path / "export" / "left.txt").touch()
    export(new, tokenizer, tmp_path / "export", "new", {"input_ids": PROBE})
    assert loss(AutoModelForCausalLM.from_pretrained(tmp_path / "export")) == loss(new)
    assert not (tmp_path / "export" / "left.txt").exists()


def test_nothing_temporary_is_left(tmp_path: Path, tokenizer: Any) -> None:
    export(made(tokenizer), tokenizer, tmp_path / "export", "card", {"input_ids": PROBE})
    assert [file.name for file in tmp_path.iterdir()] == ["export"]


def test_the_mode_is_as_it_was(tmp_path: Path, tokenizer: Any) -> None:
    model = made(tokenizer)
    export(model, tokenizer, tmp_path / "export", "card", {"input_ids": PROBE})
    assert model.training


@pytest.fixture
def wrong(tokenizer: Any) -> GPT2LMHeadModel:
    """A model that saves another one's weights."""
    model, other = made(tokenizer, seed=1), made(tokenizer, seed=2)
    model.save_pretrained = other.save_pretrained
    return model


def test_a_wrong_export_is_not_passed_off_as_right(tmp_path: Path, tokenizer: Any, wrong: GPT2LMHeadModel) -> None:
    with pytest.raises(RuntimeError, match="opens to another model: its answers"):
        export(wrong, tokenizer, tmp_path / "export", "card", {"input_ids": PROBE})
    assert not (tmp_path / "export").exists()


def test_a_wrong_export_leaves_the_older_one_and_nothing_else(
    tmp_path: Path, tokenizer: Any, wrong: GPT2LMHeadModel
) -> None:
    old = made(tokenizer)
    export(old, tokenizer, tmp_path / "export", "card", {"input_ids": PROBE})
    with pytest.raises(RuntimeError):
        export(wrong, tokenizer, tmp_path / "export", "card", {"input_ids": PROBE})
    assert loss(AutoModelForCausalLM.from_pretrained(tmp_path / "export")) == loss(old)
    assert [file.name for file in tmp_path.iterdir()] == ["export"]


def test_a_loss_that_is_not_a_number_is_no_export(tmp_path: Path, tokenizer: Any) -> None:
    model = made(tokenizer)
    with torch.no_grad():
        model.transformer.ln_f.weight[0] = float("nan")
    with pytest.raises(RuntimeError):
        export(model, tokenizer, tmp_path / "export", "card", {"input_ids": PROBE})


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
    with pytest.raises(RuntimeError, match="opens to another model: its answers"):
        export(model, tokenizer, tmp_path / "export", "card", {"input_ids": PROBE})
