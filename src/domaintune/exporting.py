"""A trained model -> a folder that plain transformers opens, checked by opening it."""

import os
import shutil
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from transformers import PreTrainedModel

from domaintune.models.loading import AUTO_CLASSES
from domaintune.writing import PART

TOLERANCE = 1e-4  # relative: the same weights on the same device differ by rounding at most
MERGED = 5e-2  # adapters that are added to weights of 8 bits of mantissa round more


def export(
    model: PreTrainedModel,
    tokenizer: Any,
    folder: Path,
    card: str,
    probe: dict[str, torch.Tensor],
    task_name: str = "causal_lm",
) -> None:
    """Writes safetensors, tokenizer, generation config and model card; replaces an older export.

    Adapters are written to a folder `adapter/` in it and merged into the model, here and there.

    Args:
        folder: where; written beside and renamed, so that it is whole or absent.
        card: README.md, with front matter.
        probe: what the model's forward takes, one row; the exported model must answer alike.
        task_name: which of transformers' Auto classes must open it.

    Raises:
        RuntimeError: the folder opens to another model.
    """
    beside = folder.with_name(f"{folder.name}-{os.getpid()}{PART}")
    if model.can_generate():
        model.generation_config.pad_token_id = pad_token_id(tokenizer, task_name)
    elif tokenizer.pad_token is None:  # a pipeline pads its batches with it
        tokenizer.pad_token = tokenizer.eos_token
    try:
        if hasattr(model, "peft_config"):
            from domaintune.models.adapters import merge_adapters, save_adapter  # peft takes seconds to import

            save_adapter(model, beside / "adapter")
            wanted = _answers(model, probe)
            merge_adapters(model)
            _check_alike(wanted, _answers(model, probe), MERGED)
        model.save_pretrained(beside, safe_serialization=True)
        tokenizer.save_pretrained(beside)
        (beside / "README.md").write_text(card, encoding="utf-8")
        _check(model, beside, probe, task_name)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def pad_token_id(tokenizer: Any, task_name: str) -> Any:
    """That fills up what is generated: of language models the end of a text, as they know no other."""
    return tokenizer.eos_token_id if task_name == "causal_lm" else tokenizer.pad_token_id


def _check(model: PreTrainedModel, folder: Path, probe: dict[str, torch.Tensor], task_name: str) -> None:
    auto, _ = AUTO_CLASSES[task_name]
    opened = auto.from_pretrained(folder, dtype=model.dtype, trust_remote_code=False)
    _check_alike(_answers(model, probe), _answers(opened.to(model.device), probe), TOLERANCE)


def _check_alike(wanted: torch.Tensor, got: torch.Tensor, tolerance: float) -> None:
    apart = float((wanted - got).abs().max())
    if not apart <= tolerance * max(1.0, float(wanted.abs().max())):
        raise RuntimeError(f"the export opens to another model: its answers differ by {apart:.6f}")


def _answers(model: PreTrainedModel, probe: dict[str, torch.Tensor]) -> torch.Tensor:
    """Logarithms of the probabilities of all classes or tokens."""
    was_training = model.training
    inputs = {name: value.to(model.device) for name, value in probe.items()}
    with torch.no_grad():
        logits: torch.Tensor = model.eval()(**inputs).logits
    model.train(was_training)
    return F.log_softmax(logits.float(), dim=-1)
