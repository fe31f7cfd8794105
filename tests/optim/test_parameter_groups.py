from collections.abc import Callable

import pytest
import tiny
from torch import nn

from domaintune.optim.parameter_groups import parameter_groups

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
