"""A located checkpoint -> model and tokenizer. Safetensors only, no remote code, in the dtype that is asked for."""

from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils import logging as transformers_logging

from domaintune.config import ModelConfig, UsageError
from domaintune.models.dropout import replace_dropout
from domaintune.models.locating import Checkpoint

transformers_logging.disable_progress_bar()  # weights are read and written in a second or two

DROPOUT = (
    *("resid_pdrop", "embd_pdrop", "emb_pdrop", "resid_dropout", "embd_dropout", "embed_dropout"),
    *("hidden_dropout", "dropout"),
)
ATTENTION_DROPOUT = ("attn_pdrop", "attention_dropout")


def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """The checkpoint's fast tokenizer.

    Raises:
        UsageError: there is none, or it has no end-of-text token to close documents with.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder, use_fast=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UsageError(f"model.checkpoint={checkpoint.name}: its tokenizer does not open: {error}") from error
    if not tokenizer.is_fast:
        raise UsageError(f"model.checkpoint={checkpoint.name}: its tokenizer has no fast (Rust) form")
    # transformers opens a folder without the tokenizer's files as a tokenizer that knows no token.
    if not tokenizer("a", add_special_tokens=False)["input_ids"]:
        raise UsageError(f"model.checkpoint={checkpoint.name}: {checkpoint.folder} holds no tokenizer")
    if tokenizer.eos_token_id is None:
        raise UsageError(f"model.checkpoint={checkpoint.name}: its tokenizer has no end-of-text token")
    return tokenizer


def load_causal_lm(checkpoint: Checkpoint, config: ModelConfig, dtype: torch.dtype, seed: int) -> PreTrainedModel:
    """The model, in train mode.

    Args:
        checkpoint: where its files lie.
        config: the `model` group; its dropouts replace the checkpoint's.
        dtype: of the weights in memory, whatever they are stored in.
        seed: of the weights where `config.init` is random.

    Raises:
        UsageError: the checkpoint is of no causal language model, or its files are incomplete.
    """
    try:
        shape = AutoConfig.from_pretrained(checkpoint.folder, trust_remote_code=False)
        _set_dropout(shape, config)
        _fuse_activation(shape)
        if config.init == "random":
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                model = AutoModelForCausalLM.from_config(shape, dtype=dtype, trust_remote_code=False)
        else:
            model = _pretrained(checkpoint, shape, dtype)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UsageError(f"model.checkpoint={checkpoint.name}: does not open as a causal LM: {error}") from error
    replace_dropout(model)
    if config.gradient_checkpointing:
        if not model.supports_gradient_checkpointing:
            raise UsageError(f"model.gradient_checkpointing=true: {shape.model_type} can't do that")
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model.train()


def _pretrained(checkpoint: Checkpoint, shape: Any, dtype: torch.dtype) -> Any:
    model, loaded = AutoModelForCausalLM.from_pretrained(
        checkpoint.folder,
        config=shape,
        dtype=dtype,
        use_safetensors=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    # transformers fills what is missing with random weights and only warns.
    if loaded["missing_keys"]:
        raise ValueError(f"weights are missing: {', '.join(sorted(loaded['missing_keys'])[:5])}")
    return model


def _fuse_activation(shape: Any) -> None:
    """GPT-2's `gelu_new` is eight passes over memory: the same function in one kernel (a CPU step: 1.7 x as fast)."""
    for name in ("activation_function", "hidden_act"):
        if getattr(shape, name, None) == "gelu_new":
            setattr(shape, name, "gelu_pytorch_tanh")


def _set_dropout(shape: Any, config: ModelConfig) -> None:
    for name in ATTENTION_DROPOUT:
        if hasattr(shape, name):
            setattr(shape, name, config.attention_dropout)
    if config.dropout is None:
        return
    names = [name for name in DROPOUT if hasattr(shape, name)]
    if not names and config.dropout > 0:
        raise UsageError(f"model.dropout={config.dropout:g}: {shape.model_type} has no dropout; leave it null")
    for name in names:
        setattr(shape, name, config.dropout)


def output_embedding(model: PreTrainedModel) -> torch.Tensor | None:
    """The (V, D) matrix that turns hidden states into logits, or None where that is not all the head does.

    Some heads scale or cap their logits or add a bias; found out by comparing on a few tokens, not by model names. The
    hidden states are blown up for it, since a cap shows on large logits only.
    """
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Linear) or head.bias is not None or not hasattr(model, model.base_model_prefix):
        return None
    was_training = model.training
    hidden: list[torch.Tensor] = []

    def enlarge(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        output.last_hidden_state = output.last_hidden_state * 100
        hidden.append(output.last_hidden_state)
        return output

    hook = model.base_model.register_forward_hook(enlarge)
    try:
        with torch.no_grad():
            ids = torch.arange(8, device=model.device)[None] % head.out_features
            logits = model.eval()(input_ids=ids, use_cache=False).logits
            plain = hidden[0] @ head.weight.T
    finally:
        hook.remove()
        model.train(was_training)
    return head.weight if torch.allclose(logits, plain, rtol=1e-3, atol=1e-3 * float(plain.abs().max())) else None
