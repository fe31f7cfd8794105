"""What the packages carry, where they are installed (`make smollm2 minilm`): the models do what they are known for."""

import importlib.metadata
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from domaintune.models.locating import locate
from domaintune.models.packages import CARRIERS

PLAIN = (
    "The capital of France is Paris, a large city on the river Seine. "
    "It is known for its museums, its food and the Eiffel Tower."
)
INSTALLED = {distribution.metadata["Name"] for distribution in importlib.metadata.distributions()}


def needs(name: str) -> pytest.MarkDecorator:
    package = CARRIERS[name].package
    return pytest.mark.skipif(package not in INSTALLED, reason=f"`make {name}` installs {package}")


@pytest.mark.slow
@needs("smollm2")
def test_smollm2_finds_plain_english_likely_and_has_a_chat_template(tmp_path: Path) -> None:
    folder = locate("package:smollm2", cache=str(tmp_path)).folder
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = tokenizer(PLAIN, return_tensors="pt").input_ids
    with torch.no_grad():
        assert model(ids, labels=ids).loss.exp() < 25
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "Hi!"}], tokenize=False)
    assert "<|im_start|>user\nHi!<|im_end|>" in chat
    assert sum(weight.numel() for weight in model.parameters()) == 134_515_008


@pytest.mark.slow
@needs("minilm")
def test_minilm_puts_paraphrases_side_by_side() -> None:
    folder = locate("package:minilm").folder
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    texts = ["A man is playing a guitar.", "Someone plays the guitar.", "The stock market fell sharply today."]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden, mask = model(**batch).last_hidden_state, batch["attention_mask"][..., None]
    embedded = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)  # as its model card does
    same, other = (embedded[0] @ embedded[1:].T).tolist()
    assert same > 0.8
    assert abs(other) < 0.2
