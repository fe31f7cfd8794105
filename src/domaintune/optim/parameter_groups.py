"""Which parameters decay. A pure function of a model."""

from typing import Any

import torch
from torch import nn

EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups for AdamW: matrices, which decay, and the rest, which doesn't.

    Biases and norms are vectors. An embedding is a table of vectors, not a map, and decays in neither of its places
    where it is tied to the output layer. Each parameter is in exactly one group; frozen ones are in none.
    """
    embedded = {id(module.weight) for module in model.modules() if isinstance(module, EMBEDDINGS)}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def decays(parameter: torch.Tensor) -> bool:
        return parameter.ndim >= 2 and id(parameter) not in embedded

    return [
        {"params": [p for p in trained if decays(p)], "weight_decay": weight_decay},
        {"params": [p for p in trained if not decays(p)], "weight_decay": 0.0},
    ]
