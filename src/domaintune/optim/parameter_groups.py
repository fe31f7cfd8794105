"""Which parameters decay, and which learning rate each has. Pure functions of a model."""

import re
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import nn

EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
LAYER = re.compile(r"(.*?)\.(\d+)\.")  # of a parameter's name: a stack of layers, and which of them


def parameter_groups(
    model: nn.Module, weight_decay: float, rates: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """Groups for AdamW: matrices, which decay, and the rest, which doesn't, apart for each learning rate.

    Biases and norms are vectors. An embedding is a table of vectors, not a map, and decays in neither of its places
    where it is tied to the output layer. Each parameter is in exactly one group; frozen ones are in none.

    Args:
        rates: learning rates by the names of parameters, as `learning_rates` gives them; the groups come in their
            order. None leaves them to the optimizer.
    """
    embedded = {id(module.weight) for module in model.modules() if isinstance(module, EMBEDDINGS)}
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}

    def decays(parameter: torch.Tensor) -> bool:
        return parameter.ndim >= 2 and id(parameter) not in embedded

    groups = []
    for rate in [None] if rates is None else dict.fromkeys(rates.values()):
        own = [p for name, p in trained.items() if rates is None or rates[name] == rate]
        lr = {} if rate is None else {"lr": rate}
        groups += [
            {"params": [p for p in own if decays(p)], "weight_decay": weight_decay, **lr},
            {"params": [p for p in own if not decays(p)], "weight_decay": 0.0, **lr},
        ]
    return [group for group in groups if group["params"]]


def learning_rates(
    model: nn.Module, lr: float, layer_decay: float, head_lr: float | None, head: Collection[str]
) -> dict[str, float]:
    """{name: rate} of every parameter, that of the layers nearest to the output first.

    Args:
        lr: of what stands above all layers.
        layer_decay: the share that each layer has of the rate of what stands above it (Clark et al., "ELECTRA", 2020).
        head_lr: of the parameters in `head`; None is `lr`.
        head: names of the parameters of the head.
    """
    body = [name for name, _ in model.named_parameters() if name not in head]
    above = layers_above(body, embedding_names(model))
    rates = {name: lr * layer_decay ** above[name] for name in sorted(body, key=above.__getitem__)}
    return rates | dict.fromkeys(head, lr if head_lr is None else head_lr)


def embedding_names(model: nn.Module) -> set[str]:
    return {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, EMBEDDINGS)}


def layers_above(names: Collection[str], embeddings: Collection[str]) -> dict[str, int]:
    """How far below the output each parameter of a transformer's body stands, told from its name.

    0 is what stands above all layers, as the last norm; 1 to L are the layers, those of a decoder above those of its
    encoder, whose own last norm stands with its last layer; L + 1 are the embeddings.

    Args:
        embeddings: names of parameters that are embeddings, whatever they are called.
    """
    found = {name: LAYER.match(name) for name in names}
    layers = dict.fromkeys((match[1], int(match[2])) for match in found.values() if match)
    stacks = list(dict.fromkeys(stack for stack, _ in layers))
    order = sorted(layers, key=lambda layer: (stacks.index(layer[0]), layer[1]), reverse=True)
    place = {layer: number for number, layer in enumerate(order, start=1)}
    tops = {
        stack.rpartition(".")[0] + ".": place[max(layer for layer in order if layer[0] == stack)] for stack in stacks
    }

    def above(name: str) -> int:
        if match := found[name]:
            return place[match[1], int(match[2])]
        if name in embeddings or "embed" in name:
            return len(order) + 1
        top = next((top for parent, top in tops.items() if name.startswith(parent)), 0)
        return top if top > 1 else 0

    return {name: above(name) for name in names}
