"""LoRA (Hu et al., 2021): matrices of a low rank beside a model's own, which stay as they are.

The peft library puts them into the model's layers in place, so it stays the class that it was: whatever looks for its
body, its head or its attention finds them.
"""

import re
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from domaintune.config.schema import PeftConfig
from domaintune.kernels.dropout import replace_dropout
from domaintune.models.parts import head_parameters, is_of_head
from domaintune.models.patterns import matching

NAME = "default"  # of an adapter: a model could have several
IN_PEFT = "base_model.model."  # how peft begins the name of a parameter of a model that it wraps


def add_adapters(
    model: PreTrainedModel,
    config: PeftConfig,
    seed: int,
    train_head: bool,
    base: str = "",
    peft_type: str | None = None,
) -> None:
    """Freezes a model and adds adapters, which change nothing before they are trained.

    Args:
        config: of peft=lora.
        seed: of what the adapters start from.
        train_head: whether the head is trained as a whole, as one that starts at random must be.
        base: where others find the checkpoint, and
        peft_type: what peft calls the task: both are written beside the adapters.

    An output layer that is tied to the embeddings has none: merged, it would change them too.

    Raises:
        UsageError: a pattern of `config.targets` matches no linear layer that can have one.
    """
    assert config.rank
    assert config.alpha
    assert config.dropout is not None
    embeddings = model.get_input_embeddings().weight
    layers = {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear | Conv1D)
        and layer.weight is not embeddings
        and not (train_head and is_of_head(model, name))
    }
    if config.targets is None:
        targets = {name for name in layers if not is_of_head(model, name)} - {_output_name(model)}
    else:
        targets = matching("peft.targets", config.targets, layers)
    lora = LoraConfig(
        base_model_name_or_path=base,
        task_type=peft_type,
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]  # a ratio is taken of it
        lora_dropout=config.dropout,
        target_modules="|".join(re.escape(name) for name in sorted(targets)),
        fan_in_fan_out=any(isinstance(layers[name], Conv1D) for name in targets),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(lora, model, adapter_name=NAME)
    replace_dropout(model)
    if train_head:
        for parameter in head_parameters(model).values():
            parameter.requires_grad_(True)


def _output_name(model: PreTrainedModel) -> str:
    """Of the layer that makes logits of a vocabulary; empty where there is none."""
    output = model.get_output_embeddings()
    return next((name for name, layer in model.named_modules() if layer is output), "")


def adapted_layers(model: nn.Module) -> dict[str, Any]:
    """The layers that have an adapter, by name."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, LoraLayer)}


def save_adapter(model: PreTrainedModel, folder: Path) -> None:
    """Makes a folder of what was trained, which `peft.PeftModel.from_pretrained` opens over the model without it."""
    lora: LoraConfig = model.peft_config[NAME]
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    adapters = {name.replace(f".{NAME}.", "."): model.get_parameter(name) for name in trained if ".lora_" in name}
    heads = _outermost({name.rpartition(".")[0] for name in trained if ".lora_" not in name})
    lora.modules_to_save = heads or None
    lora.save_pretrained(str(folder))
    # peft looks for all of such a module, also for what is tied.
    whole = {
        f"{head}.{name}": weight for head in heads for name, weight in model.get_submodule(head).state_dict().items()
    }
    weights = {IN_PEFT + name: weight.detach().cpu().clone() for name, weight in (adapters | whole).items()}
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def _outermost(modules: set[str]) -> list[str]:
    """Without those that are in another."""
    return sorted(name for name in modules if not any(name.startswith(f"{other}.") for other in modules))


@torch.no_grad()
def merge_adapters(model: PreTrainedModel) -> None:
    """Adds the adapters to the weights and takes them away: the model is again one of plain transformers."""
    for name, layer in adapted_layers(model).items():
        layer.merge(safe_merge=True)
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, layer.get_base_layer())
    del model.peft_config
