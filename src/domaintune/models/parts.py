"""Which parts of a model there are, and which are trained."""

from collections.abc import Iterable

import torch
from torch import nn
from transformers import PreTrainedModel

from domaintune.errors import UsageError
from domaintune.models.patterns import matching

ADAPTED = ".base_layer"  # in the name of a weight that has an adapter


def is_of_head(model: PreTrainedModel, name: str) -> bool:
    """Whether a parameter is no part of the body. A pooler counts as the head's: only heads for labels use it."""
    prefix = model.base_model_prefix
    return hasattr(model, prefix) and (not name.startswith(f"{prefix}.") or ".pooler." in name)


def head_parameters(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """By name; a head that is tied to the embeddings is theirs, and not among them."""
    return {name: parameter for name, parameter in model.named_parameters() if is_of_head(model, name)}


def hold_frozen_in(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Holds the frozen matrices in a dtype. Vectors, as those of norms, take little memory and stay as they are.

    The model is then for autocast alone; `model.float()` gives it back, with the matrices as they were rounded.
    """
    for parameter in model.parameters():
        if not parameter.requires_grad and parameter.ndim > 1:
            parameter.data = parameter.data.to(dtype)


def freeze(model: PreTrainedModel, patterns: Iterable[str]) -> None:
    """Takes the parameters whose names the patterns match out of training.

    A parameter that has several names, as one that is tied, answers to each of them.

    Raises:
        UsageError: a pattern matches nothing, or nothing is left to train.
    """
    named: dict[str, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        named.setdefault(name.replace(ADAPTED, ""), []).append(parameter)
    for name in matching("model.freeze", patterns, named):
        for parameter in named[name]:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UsageError("model.freeze leaves nothing to train: every parameter is frozen")
