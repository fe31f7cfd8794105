"""Dropout whose random numbers cost little on a CPU.

torch draws a number for every element there, one at a time: a fifth of a training step of GPT-2. Sixteen bits of it are
enough to decide about an element, and one draw has 64.
"""

import torch
import torch.nn.functional as F
from torch import nn

LEVELS = 1 << 16  # of the probabilities that sixteen bits can tell apart


@torch.library.custom_op("domaintune::kept", mutates_args=(), tags=(torch.Tag.nondeterministic_seeded,))
def kept(like: torch.Tensor, dropped_levels: int) -> torch.Tensor:
    """True with probability 1 - dropped_levels / 65536, for each element of a CPU tensor's shape.

    An operator of its own, so that `torch.compile` neither draws again in the backward pass nor in another way.
    """
    draws = torch.empty((like.numel() + 3) // 4, dtype=torch.int64).random_(-(1 << 63), None)  # all 64 bits
    return (draws.view(torch.int16)[: like.numel()] >= dropped_levels - LEVELS // 2).view(like.shape)


@kept.register_fake
def _(like: torch.Tensor, _dropped_levels: int) -> torch.Tensor:
    return torch.empty(like.shape, dtype=torch.bool, device=like.device)


class Dropout(nn.Dropout):
    """torch.nn.Dropout with its probability rounded to 1/65536 on a CPU, where the scale is that of the rounded one."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        levels = min(round(self.p * LEVELS), LEVELS - 1)
        if not self.training or levels == 0 or self.p == 1 or input.device.type != "cpu":
            return F.dropout(input, self.p, self.training)
        return torch.where(kept(input, levels), input * (LEVELS / (LEVELS - levels)), 0.0)


def replace_dropout(model: nn.Module) -> None:
    """Puts `Dropout` where a model has torch's."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, Dropout(child.p))
