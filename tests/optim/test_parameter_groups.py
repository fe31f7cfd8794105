from collections.abc import Callable
from typing import Any

import pytest
import tiny
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForTokenClassification,
    RobertaConfig,
    RobertaForMaskedLM,
)

from domaintune.models.parts import head_parameters
from domaintune.optim.parameter_groups import learning_rates, parameter_groups

MODELS = {"gpt2": tiny.gpt2, "llama": tiny.llama, "llama_tied": lambda: tiny.llama(tie_word_embeddings=True)}


def names(model: nn.Module, decay: float = 0.1) -> tuple[set[str], set[str]]:
    """The names of the parameters that decay, and of those that don't."""
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    decaying, others = parameter_groups(model, decay)
    assert (decaying["weight_decay"], others["weight_decay"]) == (decay, 0.0)
    return {name_of[id(p)] for p in decaying["params"]}, {name_of[id(p)] for p in others["params"]}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
def test_every_trained_parameter_is_in_exactly_one_group(make: Callable[[], nn.Module]) -> None:
    model = make()
    grouped = [id(parameter) for group in parameter_groups(model, 0.1) for parameter in group["params"]]
    assert sorted(grouped) == sorted(id(parameter) for parameter in model.parameters())


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
def test_frozen_parameters_are_in_no_group(make: Callable[[], nn.Module]) -> None:
    model = make()
    frozen = [parameter.requires_grad_(False) for parameter in list(model.parameters())[::2]]
    grouped = {id(parameter) for group in parameter_groups(model, 0.1) for parameter in group["params"]}
    assert grouped.isdisjoint(map(id, frozen))
    assert len(grouped) == len(list(model.parameters())) - len(frozen)


def test_of_gpt2_the_matrices_decay_and_biases_norms_and_embeddings_never() -> None:
    decaying, others = names(tiny.gpt2())
    assert decaying == {
        f"transformer.h.{layer}.{matrix}.weight"
        for layer in range(2)
        for matrix in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    }
    assert {"transformer.wte.weight", "transformer.wpe.weight", "transformer.ln_f.weight"} < others
    assert all(name in others for name, _ in tiny.gpt2().named_parameters() if name.endswith("bias"))


def test_an_output_layer_of_its_own_is_a_matrix_and_decays() -> None:
    decaying, others = names(tiny.llama())
    assert "lm_head.weight" in decaying
    assert "model.embed_tokens.weight" in others


def test_an_output_layer_tied_to_the_embedding_does_not_decay() -> None:
    model = tiny.llama(tie_word_embeddings=True)
    decaying, others = names(model)
    assert "model.embed_tokens.weight" in others
    assert decaying == {
        name for name, parameter in model.named_parameters() if "layers" in name and parameter.ndim == 2
    }


def rates(model: nn.Module, layer_decay: float = 1.0, head_lr: float | None = None) -> dict[str, float]:
    return learning_rates(model, 1.0, layer_decay, head_lr, head_parameters(model))


def test_unless_asked_for_there_is_one_rate() -> None:
    assert set(rates(tiny.gpt2()).values()) == {1.0}


def test_of_gpt2_each_layer_has_half_of_the_rate_above_it() -> None:
    found = rates(tiny.gpt2(), layer_decay=0.5)
    assert {found[name] for name in found if ".h.1." in name} == {0.5}
    assert {found[name] for name in found if ".h.0." in name} == {0.25}
    assert found["transformer.ln_f.weight"] == 1.0
    assert found["transformer.wte.weight"] == found["transformer.wpe.weight"] == 0.125


SMALL: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}
ENCODERS = {
    "bert": lambda: BertForSequenceClassification(BertConfig(**SMALL)),
    "roberta": lambda: RobertaForMaskedLM(RobertaConfig(**SMALL)),
    "distilbert": lambda: DistilBertForTokenClassification(DistilBertConfig(vocab_size=40, dim=12, n_layers=2)),
}


@pytest.mark.parametrize("make", ENCODERS.values(), ids=ENCODERS.keys())
def test_of_an_encoder_the_last_layer_has_half_of_the_rate_of_the_head(make: Callable[[], nn.Module]) -> None:
    model = make()
    found = rates(model, layer_decay=0.5)
    assert {found[name] for name in found if ".layer.1." in name} == {0.5}
    assert {found[name] for name in found if ".layer.0." in name} == {0.25}
    assert {found[name] for name in found if ".embeddings." in name} == {0.125}
    assert {found[name] for name in head_parameters(model)} == {1.0}


def test_of_bert_the_embeddings_norm_is_the_embeddings_and_the_head_has_a_rate_of_its_own() -> None:
    found = rates(BertForSequenceClassification(tiny.bert().config), layer_decay=0.5, head_lr=3.0)
    assert {found[name] for name in found if name.startswith("bert.embeddings.")} == {0.5**3}
    assert {found[name] for name in found if ".layer.1." in name} == {0.5}
    assert {name for name in found if found[name] == 3.0} == {
        "bert.pooler.dense.weight",
        "bert.pooler.dense.bias",
        "classifier.weight",
        "classifier.bias",
    }


def test_of_t5_the_decoder_stands_above_the_encoder() -> None:
    found = rates(tiny.t5(), layer_decay=0.5)
    of = {
        stack: {found[name] for name in found if name.startswith(stack)}
        for stack in ("encoder.block.0", "decoder.block.1")
    }
    assert of == {"encoder.block.0": {0.5**4}, "decoder.block.1": {0.5}}
    assert found["shared.weight"] == 0.5**5
    assert found["encoder.final_layer_norm.weight"] == 0.5**3, "as the encoder's last layer"
    assert found["decoder.final_layer_norm.weight"] == 1.0


def test_groups_are_apart_for_each_rate_the_highest_first() -> None:
    model = tiny.gpt2()
    groups = parameter_groups(model, 0.1, rates(model, layer_decay=0.5))
    assert [group["lr"] for group in groups] == [1.0, 0.5, 0.5, 0.25, 0.25, 0.125]
    assert sorted(id(p) for group in groups for p in group["params"]) == sorted(id(p) for p in model.parameters())
