"""Rows of windows -> a batch of tensors: one window a row, or as many as fit."""

from typing import NotRequired, TypedDict

import torch
import torch.nn.functional as F

IGNORED = -100  # the label that no loss counts: the field's convention, from PyTorch's cross_entropy
ROUNDED_TO = 256  # predictions of a batch


class Batch(TypedDict):
    """What a task gets.

    Attributes:
        input_ids, labels: (B, T). A label stands under its own token, as transformers has it.
        bytes: how many bytes of text the predicted tokens stand for.
        tokens: how many tokens have a label.
        states, targets: (M,) places in the flattened (B * T,) batch whose hidden states predict a labelled token, and
            its label. Found here, since finding them on a GPU would make the program wait for it. M is rounded up with
            IGNORED targets: tensors of ever new sizes would leave holes in memory.
        position_ids: (B, T), packed only: they start anew with every window.
        cu_seqlens: (S + 1,) int32, packed only: where windows begin in the flattened (B * T,) batch. Padding at the
            end of a row counts as a window of its own.
    """

    input_ids: torch.Tensor
    labels: torch.Tensor
    bytes: int
    tokens: int
    states: torch.Tensor
    targets: torch.Tensor
    position_ids: NotRequired[torch.Tensor]
    cu_seqlens: NotRequired[torch.Tensor]


class Window(TypedDict):
    """(T,) token ids, (T,) labels (the first is always IGNORED), and the bytes that the labelled ones stand for."""

    input_ids: torch.Tensor
    labels: torch.Tensor
    bytes: int


def pad(windows: list[Window], pad_token_id: int) -> Batch:
    """One window a row, padded on the right to the longest.

    What is padding is known by length, never by `== pad_token_id`: for
    GPT-2 that is the end-of-text token, which is trained. No attention mask: under a causal mask no token sees the
    padding to its right.
    """
    longest = max(len(window["input_ids"]) for window in windows)
    input_ids, labels, _ = _fill([[window] for window in windows], longest, pad_token_id)
    return {
        "input_ids": input_ids,
        "labels": labels,
        "bytes": sum(window["bytes"] for window in windows),
        **_targets(labels),
    }


def pack(rows: list[list[Window]], block_size: int, pad_token_id: int) -> Batch:
    """Windows end to end, each row padded to `block_size`: a batch has the same shape every time."""
    input_ids, labels, starts = _fill(rows, block_size, pad_token_id)
    cu_seqlens = torch.tensor([*starts, input_ids.numel()], dtype=torch.int32)
    lengths = cu_seqlens.diff().long()
    position = torch.arange(input_ids.numel()) - cu_seqlens[:-1].long().repeat_interleave(lengths)
    return {
        "input_ids": input_ids,
        "labels": labels,
        "bytes": sum(window["bytes"] for row in rows for window in row),
        **_targets(labels),
        "position_ids": position.view_as(input_ids),
        "cu_seqlens": cu_seqlens,
    }


class _Targets(TypedDict):
    tokens: int
    states: torch.Tensor
    targets: torch.Tensor


def _targets(labels: torch.Tensor) -> _Targets:
    """What of a batch is predicted, of (B, T) labels; the first of a row is never labelled."""
    labels = labels.flatten()
    places = (labels != IGNORED).nonzero()[:, 0]
    rest = min(-len(places) % ROUNDED_TO, len(labels) - len(places))
    return {
        "tokens": len(places),
        "states": F.pad(places - 1, (0, rest)),
        "targets": F.pad(labels[places], (0, rest), value=IGNORED),
    }


def _fill(rows: list[list[Window]], width: int, pad_token_id: int) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """(B, width) ids and labels, and where in the flattened batch windows and paddings begin."""
    input_ids = torch.full((len(rows), width), pad_token_id)
    labels = torch.full((len(rows), width), IGNORED)
    starts = []
    for number, row in enumerate(rows):
        place = 0
        for window in row:
            starts.append(number * width + place)
            end = place + len(window["input_ids"])
            input_ids[number, place:end] = window["input_ids"]
            labels[number, place:end] = window["labels"]
            place = end
        if place < width:
            starts.append(number * width + place)
    return input_ids, labels, starts
