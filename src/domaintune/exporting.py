"""A trained model -> a folder that plain transformers opens, checked by opening it."""

import os
import shutil
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, PreTrainedModel

TOLERANCE = 1e-4  # of the loss, relative: the same weights on the same device differ by rounding at most


def export(model: PreTrainedModel, tokenizer: Any, folder: Path, card: str, probe: torch.Tensor) -> None:
    """Writes safetensors, tokenizer, generation config and model card; replaces an older export.

    Args:
        folder: where; written beside and renamed, so that it is whole or absent.
        card: README.md, with front matter.
        probe: (1, T) token ids; the exported model must give the same loss on them.

    Raises:
        RuntimeError: the folder opens to another model.
    """
    beside = folder.with_name(f"{folder.name}.tmp-{os.getpid()}")
    model.generation_config.pad_token_id = tokenizer.eos_token_id
    try:
        model.save_pretrained(beside, safe_serialization=True)
        tokenizer.save_pretrained(beside)
        (beside / "README.md").write_text(card, encoding="utf-8")
        _check(model, beside, probe)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _check(model: PreTrainedModel, folder: Path, probe: torch.Tensor) -> None:
    opened = AutoModelForCausalLM.from_pretrained(folder, dtype=model.dtype, trust_remote_code=False)
    wanted, got = _loss(model, probe), _loss(opened.to(model.device), probe)
    if not abs(wanted - got) <= TOLERANCE * abs(wanted):
        raise RuntimeError(f"the export opens to another model: loss {got:.6f} instead of {wanted:.6f}")


def _loss(model: PreTrainedModel, probe: torch.Tensor) -> float:
    was_training = model.training
    ids = probe.to(model.device)
    with torch.no_grad():
        logits = model.eval()(input_ids=ids, use_cache=False).logits[0, :-1]
    model.train(was_training)
    return float(F.cross_entropy(logits.float(), ids[0, 1:]))
