"""From hidden states and the output embedding straight to the loss, without the (tokens x vocabulary) matrix.

`linear_cross_entropy` computes a few hundred rows of logits at a time and their gradients on the spot (in the forward
pass), so that the largest tensor is (chunk, V) and no logits are kept for the backward pass. The idea is that of
Wijmans et al., "Cut Your Losses in Large-Vocabulary Language Models" (2024) and of Liger Kernel's fused linear cross
entropy (2024). `linear_cross_entropy_reference` is the same by the book.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

IGNORED = -100
CHUNK_ELEMENTS = 4 << 20  # of a chunk's logits: 16 MB in fp32 stays near the processor, and keeps a GPU busy
MIN_ROWS = 256  # with fewer, reading a large vocabulary's matrix costs more than multiplying with it


def linear_cross_entropy_reference(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Sum over rows of the cross entropy of `hidden @ weight.T`; same signature as `linear_cross_entropy`."""
    logits = hidden @ weight.T
    exact = torch.float64 if logits.dtype == torch.float64 else torch.float32
    return F.cross_entropy(logits.to(exact), labels, ignore_index=IGNORED, reduction="sum")


def linear_cross_entropy(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Sum over rows of the cross entropy of `hidden @ weight.T` against `labels`, in nats.

    Products are computed in autocast's dtype where autocast is on, else in `hidden`'s; softmax and sums in fp32.

    Args:
        hidden: (N, D) hidden states.
        weight: (V, D) output embedding, tied or not.
        labels: (N,) token ids; rows labelled -100 are dropped before the projection.

    Returns:
        a scalar in fp32 (fp64 for fp64 inputs); 0 with zero gradients where no row has a label.
    """
    labelled = (labels != IGNORED).nonzero()[:, 0]
    hidden, labels = hidden.index_select(0, labelled), labels.index_select(0, labelled)
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    if torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad):
        loss: torch.Tensor = _LinearCrossEntropy.apply(hidden, weight, labels, dtype)
        return loss
    return _loss_and_gradients(hidden, weight, labels, dtype, gradients=False)[0]


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, dtype: torch.dtype
    ) -> torch.Tensor:
        loss, hidden_gradient, weight_gradient = _loss_and_gradients(hidden, weight, labels, dtype, gradients=True)
        ctx.save_for_backward(hidden_gradient, weight_gradient)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None, None]:
        hidden_gradient, weight_gradient = ctx.saved_tensors
        scale = grad_outputs[0]
        return hidden_gradient * scale.to(hidden_gradient), weight_gradient * scale.to(weight_gradient), None, None


def _loss_and_gradients(
    hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, dtype: torch.dtype, gradients: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The summed loss and, if asked for, its gradients for `hidden` and `weight` (else empty tensors)."""
    exact = torch.float64 if hidden.dtype == torch.float64 else torch.float32
    loss = torch.zeros((), dtype=exact, device=hidden.device)
    hidden_gradient = torch.empty_like(hidden) if gradients else torch.empty(0)
    # Summed over chunks in fp32: in bf16 the small terms of late chunks would be lost.
    weight_gradient = torch.zeros_like(weight, dtype=exact) if gradients else torch.empty(0)
    rows = max(MIN_ROWS, CHUNK_ELEMENTS // len(weight))
    with torch.autocast(hidden.device.type, enabled=False):
        narrow_weight = weight.to(dtype)
        for first in range(0, len(hidden), rows):
            chunk, target = hidden[first : first + rows].to(dtype), labels[first : first + rows, None]
            logits = (chunk @ narrow_weight.T).to(exact)  # (chunk, V)
            log_normalizer = logits.logsumexp(-1, keepdim=True)
            loss += (log_normalizer - logits.gather(1, target)).sum()
            if gradients:
                # d loss / d logits = softmax - one_hot(target)
                wrong = logits.sub_(log_normalizer).exp_()
                wrong.scatter_add_(1, target, -torch.ones_like(log_normalizer))
                wrong = wrong.to(dtype)
                hidden_gradient[first : first + rows] = wrong @ narrow_weight
                weight_gradient += wrong.T @ chunk
    return loss, hidden_gradient, weight_gradient.to(weight.dtype) if gradients else weight_gradient
