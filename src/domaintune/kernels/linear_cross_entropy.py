"""From hidden states and the output embedding straight to the loss, without the (tokens x vocabulary) matrix.

`linear_cross_entropy` makes the logits of a block of the vocabulary at a time and keeps of each row no more than its
log-normalizer; the backward pass makes them once more and has each block's gradient in one product over all rows. That
is a third more arithmetic than keeping the logits, and less work: nothing as large as the vocabulary's matrix is summed
up chunk by chunk, and a block stays near the processor. The idea is that of Wijmans et al., "Cut Your Losses in
Large-Vocabulary Language Models" (2024). `linear_cross_entropy_reference` is the same by the book. On a GPU it is done
another way (`kernels/fused.py`): there memory is fast, and each small operation costs a pass over it.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from domaintune.kernels import fused
from domaintune.kernels.fused import IGNORED, FusedLinearCrossEntropy, fused_losses

FUSED_ON = "cuda"  # the device type that `kernels/fused.py` is for
# Of a block of logits: on a CPU 16 MB in bf16; elsewhere few blocks, since each is some thirty small kernels.
BLOCK_ELEMENTS, ELEMENTS_ELSEWHERE, MIN_COLUMNS = 8 << 20, 64 << 20, 256
NEAR_ELEMENTS = 256 << 10  # of them in fp32 at a time on a CPU: 1 MB stays in the cores' caches from pass to pass


def linear_cross_entropy_reference(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    label_smoothing: float = 0.0,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """Sum over rows of the cross entropy of `hidden @ weight.T + bias`; the signature of `linear_cross_entropy`."""
    logits = F.linear(hidden, weight, bias)
    exact = torch.float64 if logits.dtype == torch.float64 else torch.float32
    return F.cross_entropy(
        logits.to(exact), labels, ignore_index=IGNORED, reduction="sum", label_smoothing=label_smoothing
    )


def linear_cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    label_smoothing: float = 0.0,
    bias: torch.Tensor | None = None,
    drop: bool = True,
) -> torch.Tensor:
    """Sum over rows of the cross entropy of `hidden @ weight.T + bias` against `labels`, in nats.

    Products are computed in autocast's dtype where autocast is on, else in `hidden`'s; softmax and sums in fp32.

    Args:
        hidden: (N, D) hidden states.
        weight: (V, D) output embedding, tied or not.
        labels: (N,) token ids; rows labelled -100 count for nothing.
        label_smoothing: the share of a label that goes to all V tokens alike (Szegedy et al., 2016).
        bias: (V,) of the output embedding, where it has one.
        drop: rows labelled -100 before the projection. Where there are few it isn't worth it: finding them makes the
            program wait for a GPU, and tensors of ever new sizes leave holes in memory.

    Returns:
        a scalar in fp32 (fp64 for fp64 inputs); 0 with zero gradients where no row has a label.
    """
    if drop:
        labelled = (labels != IGNORED).nonzero()[:, 0]
        hidden, labels = hidden.index_select(0, labelled), labels.index_select(0, labelled)
    given, trains = (hidden, weight, bias, labels, _products_dtype(hidden), label_smoothing), torch.is_grad_enabled()
    loss: torch.Tensor = (
        FusedLinearCrossEntropy.apply(*given, trains) if _is_fused(hidden) else _LinearCrossEntropy.apply(*given)
    )
    return loss


@torch.no_grad()
def linear_cross_entropy_of_each(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """(N,) what each row adds to `linear_cross_entropy`, 0 where its label is -100. To measure with: no gradient."""
    dtype = _products_dtype(hidden)
    if _is_fused(hidden):
        return fused_losses(hidden, weight, None, labels, dtype)
    losses, _ = _losses(hidden.to(dtype), weight, None, labels[:, None], 0.0, _exact(hidden))
    return losses[:, 0]


def _products_dtype(hidden: torch.Tensor) -> torch.dtype:
    device = hidden.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype


def _is_fused(hidden: torch.Tensor) -> bool:
    return hidden.device.type == FUSED_ON and hidden.dtype != torch.float64 and fused.kernel(FUSED_ON) is not None


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        labels: torch.Tensor,
        dtype: torch.dtype,
        label_smoothing: float,
    ) -> torch.Tensor:
        ctx.hidden_dtype, ctx.label_smoothing = hidden.dtype, label_smoothing
        exact, hidden, labels = _exact(hidden), hidden.to(dtype), labels[:, None]
        losses, log_normalizer = _losses(hidden, weight, bias, labels, label_smoothing, exact)
        # exp(logit - inf) is 0: the gradient of a row without a label, at no cost.
        ctx.save_for_backward(hidden, weight, bias, labels, log_normalizer.masked_fill_(labels == IGNORED, torch.inf))
        return losses.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden, weight, bias, labels, log_normalizer = ctx.saved_tensors
        scale, smoothing, exact = grad_outputs[0], ctx.label_smoothing, log_normalizer.dtype
        of_each = (labels != IGNORED).to(exact) * (smoothing / len(weight))  # of the V tokens
        hidden_gradient = torch.zeros_like(hidden, dtype=exact) if ctx.needs_input_grad[0] else None
        weight_gradient = torch.empty_like(weight) if ctx.needs_input_grad[1] else None
        bias_gradient = torch.empty_like(bias) if ctx.needs_input_grad[2] else None
        for columns, narrow_weight, wrong in _blocks(hidden, weight, bias):
            # d loss / d logits = softmax - (1 - smoothing) * one_hot(label) - smoothing / V, put where the logits were
            inside, place = _find(labels, columns)
            hit = inside.to(exact) * (smoothing - 1)
            for rows in _near(wrong):
                near = torch.sub(wrong[rows], log_normalizer[rows]).exp_()
                # scatter_add_ would be the same, but CUDA has no deterministic one.
                near.scatter_(1, place[rows], near.gather(1, place[rows]) + hit[rows])
                wrong[rows] = near.sub_(of_each[rows]) if smoothing else near
            # Scaled as the last thing: a loss scale of 2^16 would overflow in fp16 products.
            if hidden_gradient is not None:
                hidden_gradient += wrong @ narrow_weight
            if weight_gradient is not None:
                weight_gradient[columns] = (wrong.T @ hidden).to(exact).mul_(scale)
            if bias_gradient is not None:
                bias_gradient[columns] = wrong.sum(0, dtype=exact).mul_(scale)
        if hidden_gradient is not None:
            hidden_gradient = hidden_gradient.mul_(scale).to(ctx.hidden_dtype)
        return hidden_gradient, weight_gradient, bias_gradient, None, None, None


def _exact(hidden: torch.Tensor) -> torch.dtype:
    """What softmax and sums are computed in."""
    return torch.float64 if hidden.dtype == torch.float64 else torch.float32


def _losses(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    labels: torch.Tensor,
    label_smoothing: float,
    exact: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, 1) losses, 0 where the label is -100, and (N, 1) log-normalizers."""
    log_normalizer = hidden.new_full((len(hidden), 1), -torch.inf, dtype=exact)
    of_label = hidden.new_zeros((len(hidden), 1), dtype=exact)
    mean = hidden.new_zeros((len(hidden), 1), dtype=exact)  # over the vocabulary
    for columns, _, logits in _blocks(hidden, weight, bias):
        inside, place = _find(labels, columns)
        of_label += logits.gather(1, place) * inside
        for rows in _near(logits):
            near = logits[rows].to(exact)
            log_normalizer[rows] = log_normalizer[rows].logaddexp(near.logsumexp(1, keepdim=True))
            if label_smoothing:
                mean[rows] += near.sum(1, keepdim=True) / len(weight)
    losses = log_normalizer - (1 - label_smoothing) * of_label - label_smoothing * mean
    return losses.masked_fill_(labels == IGNORED, 0), log_normalizer


def _blocks(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
    """(columns of the logits, their weights in the products' dtype, the logits, which may be overwritten)."""
    elements = BLOCK_ELEMENTS if hidden.device.type == "cpu" else ELEMENTS_ELSEWHERE
    width = min(len(weight), max(MIN_COLUMNS, elements // max(1, len(hidden))))
    room = hidden.new_empty(len(hidden) * width)
    with torch.autocast(hidden.device.type, enabled=False):
        for first in range(0, len(weight), width):
            narrow_weight = weight[first : first + width].to(hidden.dtype)
            logits = room[: len(hidden) * len(narrow_weight)].view(len(hidden), len(narrow_weight))
            if bias is None:
                torch.mm(hidden, narrow_weight.T, out=logits)
            else:
                torch.addmm(bias[first : first + width].to(hidden.dtype), hidden, narrow_weight.T, out=logits)
            yield slice(first, first + len(narrow_weight)), narrow_weight, logits


def _near(logits: torch.Tensor) -> Iterator[slice]:
    """Groups of a block's rows that are worked on in fp32 at a time."""
    rows = max(1, NEAR_ELEMENTS // logits.shape[1]) if logits.device.type == "cpu" else len(logits)
    return (slice(first, first + rows) for first in range(0, len(logits), rows))


def _find(labels: torch.Tensor, columns: slice) -> tuple[torch.Tensor, torch.Tensor]:
    """Whether a row's label is one of the columns, and at which place of them: two of (N, 1)."""
    inside = (labels >= columns.start) & (labels < columns.stop)
    return inside, (labels - columns.start).clamp(0, columns.stop - columns.start - 1)
