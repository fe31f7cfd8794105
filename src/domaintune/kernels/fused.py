"""Linear cross entropy on GPUs: the gradients are made as the loss is, a group of rows at a time.

The logits of a group are overwritten by their own gradients, which go into the gradients of the hidden states and of
the weight at once: three products where a backward pass that makes the logits anew has four. The idea is that of Hsu et
al., "Liger Kernel" (2024).
"""

import importlib
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch.autograd.function import once_differentiable

IGNORED = -100
ROWS = 4096  # at a time: the weight's gradient is read and written once for each group
# The vocabulary is rounded up to a multiple. A product with an odd side takes five times as long on an H200: 3.3 ms
# instead of 0.7 ms for 4096 x 50257 x 768 in bf16.
ALIGNED = 64

Kernel = Callable[[torch.Tensor, int, torch.Tensor, int, float, bool], torch.Tensor]


@cache
def kernel(device: str) -> Kernel | None:
    """The losses of logits, and their gradients in the logits' place; None where that can't be had on a device.

    Triton compiles it as it is first called, which needs a C compiler and Python's headers; so it is called here.
    """
    try:
        function: Kernel = importlib.import_module("domaintune.kernels.softmax_kernel").cross_entropy_in_place
        function(
            torch.zeros(1, ALIGNED, device=device), 1, torch.zeros(1, dtype=torch.int64, device=device), 0, 0, True
        )
    except Exception as error:  # of many kinds: no Triton, no compiler, no such GPU, a cache that can't be written, ...
        reason = str(error).strip().partition("\n")[0]
        warnings.warn(f"the loss is computed without its kernel for GPUs, more slowly: {reason}", stacklevel=2)
        return None
    return function


class FusedLinearCrossEntropy(torch.autograd.Function):
    """The sum of the rows' losses; see `linear_cross_entropy`."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        labels: torch.Tensor,
        dtype: torch.dtype,
        label_smoothing: float,
        trains: bool,
    ) -> torch.Tensor:
        """`trains`: whether a backward pass may follow; here torch has gradients switched off in any case."""
        given, needed = (hidden, weight, bias), ctx.needs_input_grad
        gradients = [
            _zeros(tensor, torch.float32) if tensor is not None and trains and needs else None
            for tensor, needs in zip(given, needed[: len(given)], strict=True)
        ]
        loss = fused_losses(hidden, weight, bias, labels, dtype, label_smoothing, *gradients).sum()
        ctx.dtypes = [None if tensor is None else tensor.dtype for tensor in given]
        ctx.gradients = [
            None if gradient is None or tensor is None else gradient[: len(tensor)]
            for tensor, gradient in zip(given, gradients, strict=True)
        ]
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            raise RuntimeError(
                "linear_cross_entropy frees its gradients in its backward pass, which can be called once"
            )
        # Scaled as the last thing: a loss scale of 2^16 would overflow in fp16 products.
        scaled = [
            None if gradient is None else gradient.mul_(grad_outputs[0]).to(dtype)
            for gradient, dtype in zip(gradients, ctx.dtypes, strict=True)
        ]
        return (*scaled, None, None, None, None)


def fused_losses(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    labels: torch.Tensor,
    dtype: torch.dtype,
    label_smoothing: float = 0.0,
    hidden_gradient: torch.Tensor | None = None,
    weight_gradient: torch.Tensor | None = None,
    bias_gradient: torch.Tensor | None = None,
) -> torch.Tensor:
    """(N,) losses in fp32, 0 where the label is -100.

    Args:
        hidden, weight, bias, labels, label_smoothing: see `linear_cross_entropy`.
        dtype: of the products.
        hidden_gradient, weight_gradient, bias_gradient: zeros in fp32, to which the gradients of the losses' sum are
            added; None where they aren't wanted. Their numbers of rows are rounded up to ALIGNED.
    """
    in_place = kernel(hidden.device.type)
    assert in_place is not None
    losses = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
    with torch.autocast(hidden.device.type, enabled=False):
        vocabulary, hidden, weight = len(weight), hidden.to(dtype), _padded(weight, dtype)
        bias = None if bias is None else _padded(bias, dtype)
        room = hidden.new_empty(min(ROWS, len(hidden)), len(weight))
        trains = any(gradient is not None for gradient in (hidden_gradient, weight_gradient, bias_gradient))
        for first in range(0, len(hidden), ROWS):
            near = hidden[first : first + ROWS]
            rows, logits = slice(first, first + len(near)), room[: len(near)]
            if bias is None:
                torch.mm(near, weight.T, out=logits)
            else:
                torch.addmm(bias, near, weight.T, out=logits)
            losses[rows] = in_place(logits, vocabulary, labels[rows], IGNORED, label_smoothing, trains)
            if hidden_gradient is not None:
                hidden_gradient[rows] = logits @ weight
            if weight_gradient is not None:
                _add_product(weight_gradient, logits.T, near)
            if bias_gradient is not None:
                bias_gradient += logits.sum(0, dtype=bias_gradient.dtype)
    return losses


def _padded(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A copy with rows of zeros at its end."""
    copy = _zeros(tensor, dtype)
    copy[: len(tensor)] = tensor
    return copy


def _zeros(like: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """As many, with the number of rows rounded up to a multiple."""
    return like.new_zeros(-(-len(like) // ALIGNED) * ALIGNED, *like.shape[1:], dtype=dtype)


def _add_product(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    """Adds a product to a sum in fp32. One in bf16 would be rounded before it is added."""
    if left.is_cuda and left.dtype != total.dtype:
        torch.addmm(total, left, right, out_dtype=total.dtype, out=total)
    else:
        total.addmm_(left.to(total.dtype), right.to(total.dtype))
