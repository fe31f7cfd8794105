"""A located checkpoint -> model and tokenizer. Safetensors only, no remote code, in the dtype that is asked for."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel
from transformers.utils import logging as transformers_logging

from domaintune.config.schema import ModelConfig
from domaintune.errors import UsageError
from domaintune.kernels.dropout import replace_dropout
from domaintune.models.families import too_few_embeddings
from domaintune.models.heads import Head
from domaintune.models.locating import Checkpoint
from domaintune.models.parts import is_of_head

transformers_logging.set_verbosity_error()  # what a head lacks is said in our own words
transformers_logging.disable_progress_bar()  # weights are read and written in a second or two

DROPOUT = (
    *("resid_pdrop", "embd_pdrop", "emb_pdrop", "resid_dropout", "embd_dropout", "embed_dropout"),
    *("hidden_dropout", "dropout", "hidden_dropout_prob", "dropout_rate"),
)
ATTENTION_DROPOUT = ("attn_pdrop", "attention_dropout", "attention_probs_dropout_prob")

SPECIAL = {"eos_token": "end-of-text token", "mask_token": "mask token"}


def load_tokenizer(checkpoint: Checkpoint, head: Head) -> Any:
    """The checkpoint's fast tokenizer.

    Raises:
        UsageError: there is none, or it lacks a special token that the head needs.
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
    needed = head.special_token
    if needed == "eos_token" and tokenizer.eos_token is None:
        tokenizer.eos_token = tokenizer.sep_token  # by which BERT's tokenizers, that some decoders have, end a text
    if needed and getattr(tokenizer, needed) is None:
        raise UsageError(f"model.checkpoint={checkpoint.name}: its tokenizer has no {SPECIAL[needed]}")
    return tokenizer


def tokens_of(tokenizer: Any) -> int:
    """For how many tokens a model needs embeddings."""
    return int(max(tokenizer.get_vocab().values())) + 1


def load_model(
    checkpoint: Checkpoint,
    config: ModelConfig,
    head: Head,
    dtype: torch.dtype,
    seed: int,
    tokens: int = 0,
    **labels: Any,
) -> PreTrainedModel:
    """The model with the head of a task, in train mode.

    A head that the checkpoint lacks, or has for other labels, is drawn anew; `has_new_head` of the model says so.

    Args:
        checkpoint: where its files lie.
        config: the `model` group; its dropouts replace the checkpoint's.
        head: of the task.
        dtype: of the weights in memory, whatever they are stored in.
        seed: of the weights that are drawn: all where `config.init` is random, else those of a new head and of
            embeddings that are added.
        tokens: the fewest that the model shall have embeddings for.
        labels: what of the model's config the data decides: `num_labels`, `id2label`, `label2id`, `problem_type`.

    Raises:
        UsageError: the checkpoint is of no model that can do the task, or its files are incomplete.
    """
    auto = head.auto
    try:
        stored = AutoConfig.from_pretrained(checkpoint.folder, trust_remote_code=False)
        shape = AutoConfig.from_pretrained(checkpoint.folder, trust_remote_code=False, **labels)
        _set_dropout(shape, config)
        _fuse_activation(shape)
        # The devices' own states stay as they are: weights are drawn on the CPU.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if config.init == "random":
                if tokens > getattr(shape, "vocab_size", tokens):
                    shape.vocab_size = tokens
                model = auto.from_config(shape, dtype=dtype, trust_remote_code=False)
            else:
                model, drawn = _pretrained(auto, checkpoint, shape, dtype, head.is_new)
                body = f"{model.base_model_prefix}."
                read = {name for name in model.state_dict() if not name.startswith(body)} - drawn
                if "id2label" in labels and stored.id2label != shape.id2label and read:
                    model = _with_new_head(model, auto, shape, seed)
                _resize(model, checkpoint, tokens, config.resize_embeddings)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UsageError(f"model.checkpoint={checkpoint.name}: does not open as {head.words}: {error}") from error
    if config.dropout is not None:
        _set_head_dropout(model, config.dropout)
    replace_dropout(model)
    _silence_padding(model)
    if config.gradient_checkpointing:
        if not model.supports_gradient_checkpointing:
            raise UsageError(f"model.gradient_checkpointing=true: {shape.model_type} can't do that")
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model.train()


def _pretrained(
    auto: Any, checkpoint: Checkpoint, shape: Any, dtype: torch.dtype, new_head: bool
) -> tuple[Any, set[str]]:
    """The model, and the names of the weights that the checkpoint lacked, which are drawn."""
    model, loaded = auto.from_pretrained(
        checkpoint.folder,
        config=shape,
        dtype=dtype,
        use_safetensors=True,
        trust_remote_code=False,
        output_loading_info=True,
        ignore_mismatched_sizes=new_head,
    )
    # transformers fills what is missing with random weights and only warns.
    mismatched = {key if isinstance(key, str) else key[0] for key in loaded["mismatched_keys"]}
    drawn = {*loaded["missing_keys"], *mismatched}
    missing = sorted(drawn)
    if new_head:
        missing = [name for name in missing if not is_of_head(model, name)]
        model.has_new_head = len(missing) < len(drawn)
    if missing:
        raise ValueError(f"weights are missing: {', '.join(missing[:5])}")
    return model, drawn


def _resize(model: PreTrainedModel, checkpoint: Checkpoint, tokens: int, allowed: bool) -> None:
    """Gives each token an embedding: new ones are drawn about the mean of the others, and a tied head stays tied."""
    embeddings = model.get_input_embeddings().num_embeddings
    if tokens <= embeddings:
        return
    if not allowed:
        raise UsageError(too_few_embeddings(checkpoint, tokens, embeddings))
    model.resize_token_embeddings(tokens)


def _with_new_head(model: PreTrainedModel, auto: Any, shape: Any, seed: int) -> Any:
    """The same body under a head drawn from the seed: the stored one may be for as many, but other labels."""
    torch.manual_seed(seed)
    anew = auto.from_config(shape, dtype=model.dtype, trust_remote_code=False)
    anew.base_model.load_state_dict(model.base_model.state_dict())
    anew.has_new_head = True
    return anew


def _silence_padding(model: PreTrainedModel) -> None:
    """MobileBERT's tokens see the embeddings of their neighbours, whatever mask they have: that of padding is zero,
    which is also what stands behind a text that has none."""
    shape: Any = model.config
    if getattr(shape, "trigram_input", False) and shape.pad_token_id is not None:
        weight, row = model.get_input_embeddings().weight, int(shape.pad_token_id)
        weight.data[row] = 0

        def unmoved(gradient: torch.Tensor) -> torch.Tensor:
            gradient = gradient.clone()
            gradient[row] = 0
            return gradient

        weight.register_hook(unmoved)  # an output layer that is tied to it would move it


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


def _set_head_dropout(model: PreTrainedModel, dropout: float) -> None:
    """Heads call theirs by many names in a config, or by none."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Dropout) and is_of_head(model, name):
            module.p = dropout


def output_embedding(model: PreTrainedModel) -> torch.Tensor | None:
    """The (V, D) matrix that turns hidden states into logits, or None where that is not all the head does.

    Some heads scale or cap their logits or add a bias; found out by comparing on a few tokens, not by model names. The
    hidden states are blown up for it, since a cap shows on large logits only. Some models (OPT) don't call their body
    as a whole.
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
            plain = hidden[0] @ head.weight.T if hidden else torch.zeros_like(logits)
    finally:
        hook.remove()
        model.train(was_training)
    return (
        head.weight
        if hidden and torch.allclose(logits, plain, rtol=1e-3, atol=1e-3 * float(plain.abs().max()))
        else None
    )


def head_is_linear(model: PreTrainedModel) -> bool:
    """Whether logits are the output embedding's input times its weight and plus its bias; found out on a few tokens.

    Of a masked LM or an encoder-decoder. The input is blown up for it, since a cap shows on large logits only.
    """
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Linear):
        return False
    was_training = model.training
    ids = torch.arange(8, device=model.device)[None] % head.out_features
    hook = head.register_forward_pre_hook(lambda _, given: (given[0] * 100,))
    inputs: Any = {"decoder_input_ids": ids, "use_cache": False} if model.config.is_encoder_decoder else {}
    try:
        with torch.no_grad():
            logits = model.eval()(input_ids=ids, **inputs).logits
            with handing_on(head):
                plain = F.linear(model(input_ids=ids, **inputs).logits, head.weight, head.bias)
    except RuntimeError:  # what comes after the head wants logits, as BART's bias
        return False
    finally:
        hook.remove()
        model.train(was_training)
    return torch.allclose(logits, plain, rtol=1e-3, atol=1e-3 * float(plain.abs().max()))


@contextmanager
def handing_on(head: nn.Module) -> Iterator[None]:
    """Leaves a head out while the block runs: its input comes out in the place of the logits."""
    head.forward = lambda states: states
    try:
        yield
    finally:
        del head.forward


def decoder_output(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """(B, U, D): what an encoder-decoder hands to its head; for T5 that is scaled, its decoder's states are not."""
    with handing_on(model.get_output_embeddings()):
        states: torch.Tensor = model(**inputs, use_cache=False).logits
    return states


def logits_at(model: Any, inputs: dict[str, torch.Tensor], places: torch.Tensor) -> torch.Tensor:
    """(M, V) logits of some of the (B * T) tokens of a batch: the head does not see the others.

    Heads of masked LMs look at each token by itself, so nothing is lost.
    """
    if model.base_model is model:
        logits: torch.Tensor = model(**inputs).logits
        return logits.flatten(0, 1).index_select(0, places)

    def chosen(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        output.last_hidden_state = output.last_hidden_state.flatten(0, 1).index_select(0, places)[None]
        return output

    hook = model.base_model.register_forward_hook(chosen)
    try:
        logits = model(**inputs).logits
    finally:
        hook.remove()
    return logits[0]
