"""Windows -> a batch of tensors."""

from typing import TypedDict

import torch

IGNORED = -100  # the label that no loss counts: the field's convention, from PyTorch's cross_entropy


class Batch(TypedDict):
    """input_ids and labels are (B, T); `bytes` is how many bytes of text the predicted tokens stand for."""

    input_ids: torch.Tensor
    labels: torch.Tensor
    bytes: int


class Window(TypedDict):
    """One row: (T,) token ids, and the bytes of all but the first."""

    input_ids: torch.Tensor
    bytes: int


def pad(windows: list[Window], pad_token_id: int) -> Batch:
    """Pads on the right to the longest window.

    A label stands under its own token, as transformers has it; the first token of a window is not predicted. What is
    padding is known by length, never by `== pad_token_id`: for GPT-2 that is the end-of-text token, which is trained.
    No attention mask: under a causal mask no token sees the padding to its right.
    """
    longest = max(len(window["input_ids"]) for window in windows)
    input_ids = torch.full((len(windows), longest), pad_token_id)
    labels = torch.full((len(windows), longest), IGNORED)
    for row, window in enumerate(windows):
        length = len(window["input_ids"])
        input_ids[row, :length] = window["input_ids"]
        labels[row, 1:length] = window["input_ids"][1:]
    return {"input_ids": input_ids, "labels": labels, "bytes": sum(window["bytes"] for window in windows)}
