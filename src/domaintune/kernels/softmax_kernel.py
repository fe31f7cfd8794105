"""Cross entropy of logits that lie in memory, and its gradient in their place: a kernel for GPUs, and its plain form.

torch takes a pass over memory for each of exp, sum, subtraction and cast, in fp32. The kernel reads a row of logits
twice and writes it once.
"""

import torch
import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, import-untyped, unused-ignore]

BLOCK, WARPS = 4096, 16  # logits that a program holds at a time, and its threads by 32


def cross_entropy_in_place(
    logits: torch.Tensor,
    vocabulary: int,
    labels: torch.Tensor,
    ignored: int,
    label_smoothing: float,
    gradients: bool,
) -> torch.Tensor:
    """(N,) losses in fp32, 0 where a label is `ignored`.

    Args:
        logits: (N, W) on a GPU, contiguous. With `gradients` those of the losses stand there afterwards.
        vocabulary: how many of the W columns are logits; the others get a gradient of zero.
        labels: (N,) int64.
        ignored: the label of rows that count for nothing.
        label_smoothing: the share of a label that goes to all V tokens alike.
    """
    losses = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
    _cross_entropy[(len(logits),)](
        logits, labels, losses, ignored, label_smoothing, logits.shape[1], vocabulary, label_smoothing > 0, gradients,
        BLOCK, num_warps=WARPS,
    )  # fmt: skip
    return losses


@triton.jit
def _cross_entropy(
    logits: torch.Tensor,
    labels: torch.Tensor,
    losses: torch.Tensor,
    ignored: int,
    smoothing: float,
    width: tl.constexpr,
    columns: tl.constexpr,
    smooths: tl.constexpr,
    gradients: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """A row of logits a program."""
    row = tl.program_id(0).to(tl.int64)
    logits += row * width
    label = tl.load(labels + row)
    places = tl.arange(0, block)
    if label == ignored:
        tl.store(losses + row, 0.0)
        if gradients:
            for first in range(0, width, block):
                nothing = tl.zeros((block,), dtype=tl.float32)
                tl.store(logits + first + places, nothing, mask=first + places < width)
        return
    # Read before the first reduction, which all threads wait for: later another one may have put a slope there.
    of_label = tl.load(logits + label).to(tl.float32)
    # Each thread keeps the maximum and the sum of its own columns; they meet once, at the end.
    highest = tl.full((block,), -1e30, dtype=tl.float32)
    normalizer = tl.zeros((block,), dtype=tl.float32)
    total = tl.zeros((block,), dtype=tl.float32)
    for first in range(0, columns, block):
        inside = first + places < columns
        here = tl.load(logits + first + places, mask=inside, other=-float("inf")).to(tl.float32)
        higher = tl.maximum(highest, here)
        normalizer = normalizer * tl.exp(highest - higher) + tl.exp(here - higher)
        highest = higher
        if smooths:
            total += tl.where(inside, here, 0.0)
    top = tl.max(highest, 0)
    log_normalizer = top + tl.log(tl.sum(normalizer * tl.exp(highest - top), 0))
    loss = log_normalizer - (1 - smoothing) * of_label
    if smooths:
        loss -= smoothing * tl.sum(total, 0) / columns
    tl.store(losses + row, loss)
    if gradients:
        # d loss / d logits = softmax - (1 - smoothing) * one_hot(label) - smoothing / V
        for first in range(0, width, block):
            inside = first + places < columns
            here = tl.load(logits + first + places, mask=inside, other=-float("inf")).to(tl.float32)
            slope = tl.exp(here - log_normalizer)
            if smooths:
                slope = tl.where(inside, slope - smoothing / columns, 0.0)
            slope = tl.where(first + places == label, slope - (1 - smoothing), slope)
            tl.store(logits + first + places, slope, mask=first + places < width)
