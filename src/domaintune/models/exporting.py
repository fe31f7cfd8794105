"""A trained model -> a folder that plain transformers opens, checked by opening it."""

import copy
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from transformers import GenerationConfig, PreTrainedModel

from domaintune.config.checks import EXPORT_NOTES
from domaintune.data.chatting import stop_ids
from domaintune.errors import RunError, UsageError
from domaintune.files.writing import PART, flush_folder, flush_tree
from domaintune.models.heads import Head

TOLERANCE = 1e-4  # relative: the same weights on the same device differ by rounding at most
REHEARSED = 300_000_000  # parameters, which take a second or two to write and read
MERGED = 5e-2  # adapters that are added to weights of 8 bits of mantissa round more

SAMPLING = ("temperature", "top_p", "top_k", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")


def export(
    model: PreTrainedModel,
    tokenizer: Any,
    folder: Path,
    card: str,
    probe: dict[str, torch.Tensor],
    head: Head,
    notes: Mapping[str, Any] | None = None,
) -> None:
    """Writes safetensors, tokenizer, generation config and model card; replaces an older export.

    Adapters are written to a folder `adapter/` in it and merged into the model, here and there.

    Args:
        folder: where; written beside and renamed, so that it is whole or absent.
        card: README.md, with front matter.
        probe: what the model's forward takes, one row; the exported model must answer alike.
        head: of the task; its Auto class must open it.
        notes: what this program is to know of it, for domaintune.json; see `config.EXPORT_NOTES`.

    Raises:
        RuntimeError: the folder opens to another model.
    """
    beside = folder.with_name(f"{folder.name}-{os.getpid()}{PART}")
    make_ready(model, tokenizer, head)
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
        if notes:
            (beside / EXPORT_NOTES).write_text(json.dumps(notes), encoding="utf-8")
        _check(model, beside, probe, head)
        flush_tree(beside)  # a run that counts as finished has its export, also where the power fails
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(beside, folder)
        flush_folder(folder.parent)
    except SafetensorError as error:  # of a full disk; it is no OSError
        raise RunError(f"{folder} can't be written: {error}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def make_ready(model: PreTrainedModel, tokenizer: Any, head: Head) -> None:
    """Sets what plain transformers needs to write and label in batches, and to end where this program does."""
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if head.goes_on:
        # transformers saves what a tokenizer was made with.
        tokenizer.padding_side = tokenizer.init_kwargs["padding_side"] = "left"
    if not model.can_generate():
        return
    config, ends = model.generation_config, stop_ids(tokenizer, model)
    config.pad_token_id = tokenizer.pad_token_id
    config.eos_token_id = ends[0] if len(ends) == 1 else ends or None
    samples = any(getattr(config, name, None) is not None for name in SAMPLING)
    if samples and not config.do_sample and not _can_be_saved(config):
        config.do_sample = True  # which they mean; without it transformers doesn't save them


def _can_be_saved(config: GenerationConfig) -> bool:
    try:
        config.validate(strict=True)
    except ValueError:
        return False
    return True


def rehearse_export(
    model: PreTrainedModel, tokenizer: Any, probe: dict[str, torch.Tensor], head: Head, name: str, beside: Path
) -> None:
    """Does before training what `export` will do after it, in a temporary folder: what can't be saved is told now.

    Of a model with more than `REHEARSED` parameters the weights are left out: writing them takes too long.

    Args:
        probe, head: see `export`.
        name: of the checkpoint.
        beside: the folder on whose disk the export will lie.

    Raises:
        UsageError: transformers does not save the model, or opens another one, or the disk is full.
    """
    own = model.generation_config if model.can_generate() else None
    try:
        if own is not None:
            model.generation_config = copy.deepcopy(own)
        tokenizer = copy.deepcopy(tokenizer)
        make_ready(model, tokenizer, head)
        with tempfile.TemporaryDirectory(prefix="rehearsal-", suffix=PART, dir=beside) as folder:
            model.config.save_pretrained(folder)
            if own is not None:
                model.generation_config.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            if hasattr(model, "peft_config"):
                from domaintune.models.adapters import save_adapter  # peft takes seconds to import

                save_adapter(model, Path(folder) / "adapter")
            if model.num_parameters() <= REHEARSED:
                whole = merged_copy(model, probe) if hasattr(model, "peft_config") else model
                whole.save_pretrained(folder, safe_serialization=True)
                try:
                    _check(whole, Path(folder), probe, head)
                except OSError as error:  # of transformers, which does not find what it needs in the folder
                    raise ValueError(error) from error
    except (OSError, SafetensorError) as error:
        raise UsageError(f"{beside}: an export can't be written there: {error}") from error
    except (ValueError, TypeError, LookupError, AttributeError, RuntimeError) as error:
        raise UsageError(f"model.checkpoint={name}: what is trained from it could not be exported: {error}") from error
    finally:
        if own is not None:
            model.generation_config = own


def merged_copy(model: PreTrainedModel, probe: dict[str, torch.Tensor]) -> PreTrainedModel:
    """A model with its adapters merged; the given one keeps them. Raises RuntimeError where it answers otherwise."""
    from domaintune.models.adapters import merge_adapters  # peft takes seconds to import

    copied = copy.deepcopy(model)
    merge_adapters(copied)
    _check_alike(_answers(model, probe), _answers(copied, probe), MERGED)
    return copied


def _check(model: PreTrainedModel, folder: Path, probe: dict[str, torch.Tensor], head: Head) -> None:
    opened = head.auto.from_pretrained(folder, dtype=model.dtype, trust_remote_code=False)
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
