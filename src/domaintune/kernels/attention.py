"""Attention that cannot see across documents, for batches that hold several in a row.

Registered with transformers' AttentionInterface under the name DOCUMENTS; a model whose attention goes through that
interface (GPT-2, Llama and nearly all others of transformers 5) hands `cu_seqlens` down to it.
"""

import inspect
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask

from domaintune.errors import UsageError

DOCUMENTS = "documents"
# Longer rows are attended to a window at a time on a CPU. Forward and backward in bf16 on 2 cores, 12 heads of 64, some
# 36 windows in 4096 tokens: rows of 512 take 89 ms masked and 99 ms one by one, rows of 1024 take 135 and 102.
MASKED_UP_TO = 512
TAKES_WINDOW = "window_size" in inspect.signature(varlen_attn).parameters  # older ones name causality otherwise
WISHES = ("softcap", "s_aux", "position_bias", "indices", "attention_mask")  # for a cap, sinks, ...
NARROWER = ("sliding_window", "attention_chunk_size")
TOLERANCE = 1e-3  # of the largest hidden state: far above rounding, far below what a leak does


def document_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    cu_seqlens: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention inside each window.

    By torch's kernel for variable lengths on CUDA where it serves (`fits_varlen`), in long rows on a CPU a window at a
    time, else under a mask; compiled on a CPU always under a mask, since a loop over windows would be compiled anew for
    every batch.

    Args:
        query: (B, H, T, D).
        key, value: (B, H_kv, T, D); H is a multiple of H_kv.
        attention_mask: none where there are boundaries.
        kwargs: what else the model asks of attention.
        cu_seqlens: (S + 1,) boundaries in the flattened (B * T,) batch; None (generation, padded batches) is
            transformers' own "sdpa".

    Returns:
        (B, T, H, D), and no attention weights.

    Raises:
        UsageError: the model asks for what is not computed here.
    """
    if cu_seqlens is None:
        output, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return output, None
    check_wishes({**kwargs, "attention_mask": attention_mask}, query.shape[2])
    query, key = query.to(value.dtype), key.to(value.dtype)  # rotary positions leave them in fp32 under autocast
    if fits_varlen(query, dropout):
        return _varlen(query, key, value, cu_seqlens, scaling), None
    settings: dict[str, Any] = {"dropout_p": dropout, "scale": scaling, "enable_gqa": query.shape[1] != key.shape[1]}
    compiled_on_cpu = torch.compiler.is_compiling() and query.device.type == "cpu" and dropout == 0
    if query.device.type == "cpu" and query.shape[2] > MASKED_UP_TO and not torch.compiler.is_compiling():
        return _each_document(query, key, value, cu_seqlens, settings), None
    mask = block_mask(cu_seqlens, query.shape[0], query.shape[2])
    if compiled_on_cpu:
        key, value = (part.repeat_interleave(query.shape[1] // part.shape[1], dim=1) for part in (key, value))
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        return _WrittenOut.apply(query, key, value, mask, scale).transpose(1, 2), None
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, **settings).transpose(1, 2), None


def check_wishes(asked: dict[str, Any], length: int) -> None:
    """Raises UsageError where a model asks for more than causal attention, or for windows narrower than a row."""
    wishes = [name for name in WISHES if asked.get(name) is not None]
    wishes += [f"{name}={asked[name]}" for name in NARROWER if (asked.get(name) or length) < length]
    if wishes:
        raise UsageError(
            f"data.batching=packed: this model's attention has {wishes[0]}, packed rows have none; {WAY_OUT}"
        )


def fits_varlen(query: torch.Tensor, dropout: float) -> bool:
    """Whether torch's `varlen_attn` computes this: FlashAttention, so half precision on Ampere and later."""
    return (
        TAKES_WINDOW
        and query.is_cuda
        and query.dtype in (torch.bfloat16, torch.float16)
        and dropout == 0
        and query.shape[-1] % 8 == 0
        and query.shape[-1] <= 256
        and torch.cuda.get_device_capability(query.device) >= (8, 0)
    )


def _varlen(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, cu_seqlens: torch.Tensor, scaling: float | None
) -> torch.Tensor:
    """One call over the flattened batch; costs the sum of the squares of the windows."""
    batch, heads, length, size = query.shape
    shared = heads // key.shape[1]  # query heads to a key's head
    flat = [tensor.transpose(1, 2).flatten(0, 1) for tensor in (query, key, value)]
    query, key, value = (part if part.shape[1] == heads else part.repeat_interleave(shared, dim=1) for part in flat)
    # The longest window is asked for. A row is no shorter, and knowing better would wait for the device.
    output: Any = varlen_attn(
        query, key, value, cu_seqlens, cu_seqlens, length, length, scale=scaling, window_size=(-1, 0)
    )
    return output.view(batch, length, heads, size)


def _each_document(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, cu_seqlens: torch.Tensor, settings: dict[str, Any]
) -> torch.Tensor:
    """A call per window: small, and nothing is computed that a mask would throw away."""
    batch, heads, length, size = query.shape
    windows = cu_seqlens.diff().tolist()
    parts = [
        tensor.transpose(0, 1).reshape(1, tensor.shape[1], batch * length, size).split(windows, dim=2)
        for tensor in (query, key, value)
    ]
    attend: Any = partial(F.scaled_dot_product_attention, is_causal=True, **settings)
    outputs = [attend(q, k, v) for q, k, v in zip(*parts, strict=True)]
    return torch.cat(outputs, dim=2).view(heads, batch, length, size).permute(1, 2, 0, 3)


class _WrittenOut(torch.autograd.Function):
    """Attention under a mask that is causal too, its backward pass in single operations for `torch.compile` to fuse.

    The weights are made anew from the logarithms of their normalizers (Dao et al., "FlashAttention", 2022). In bf16 on
    2 cores, 8 rows of 512 and 12 heads of 64, backward takes 38 ms and 70 ms in torch's kernel for CPUs.
    """

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, scale: float
    ) -> torch.Tensor:
        bias = torch.zeros_like(mask, dtype=query.dtype).masked_fill(~mask, -torch.inf)
        output, log_normalizer = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, 0.0, True, attn_mask=bias, scale=scale
        )
        ctx.save_for_backward(query, key, value, mask, output, log_normalizer)
        ctx.scale = scale
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, mask, output, log_normalizer = ctx.saved_tensors
        (gradient,), narrow = gradients, query.dtype
        scores = (query @ key.transpose(2, 3)).float() * ctx.scale - log_normalizer[..., None]
        weights = torch.where(mask, scores, -torch.inf).exp()
        to_weights = (gradient @ value.transpose(2, 3)).float()
        correction = (gradient.float() * output.float()).sum(-1, keepdim=True)
        to_scores = (weights * (to_weights - correction) * ctx.scale).to(narrow)
        to_value = weights.to(narrow).transpose(2, 3) @ gradient
        return to_scores @ key, to_scores.transpose(2, 3) @ query, to_value, None, None


def block_mask(cu_seqlens: torch.Tensor, batch: int, length: int) -> torch.Tensor:
    """(B, 1, T, T), true where a token may be seen: in the same window and not later."""
    places = torch.arange(batch * length, device=cu_seqlens.device)
    window = torch.bucketize(places, cu_seqlens[1:], right=True).view(batch, 1, length, 1)
    return (window == window.transpose(2, 3)).tril()


AttentionInterface.register(DOCUMENTS, document_attention)


def isolate_documents(model: PreTrainedModel) -> None:
    """Makes a model use `document_attention`.

    Raises:
        UsageError: its attention can't be replaced.
    """
    try:
        model.set_attn_implementation(DOCUMENTS)
    except ValueError as error:
        raise UsageError(
            f"data.batching=packed: {model.config.model_type} keeps its own attention; {WAY_OUT}"
        ) from error


def make_masks_unasked() -> None:
    """Has transformers make every mask of padding that it is given, in this process.

    It would look first whether a mask hides anything, to leave it out; each training step would wait for the GPU there.
    A batch without padding has a mask now, too, which keeps it from flash attention.
    """
    for name, made in (("sdpa", sdpa_mask), ("eager", eager_mask)):
        AttentionMaskInterface.register(name, partial(_unasked, made))


def _unasked(made: Any, *args: Any, attention_mask: torch.Tensor | None = None, **kwargs: Any) -> Any:
    if attention_mask is not None:
        kwargs |= {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
    return made(*args, attention_mask=attention_mask, **kwargs)


@torch.no_grad()
def check_causal(model: PreTrainedModel, input_ids: torch.Tensor) -> None:
    """Changes the last of (1, T) tokens, at least two, and sees that the predictions before it stay.

    Raises:
        UsageError: the model sees tokens to the right, so it would be asked for what it is shown.
    """
    was_training = model.training
    model.eval()
    changed = input_ids.clone()
    changed[:, -1] = (changed[:, -1] + 1) % model.config.get_text_config().vocab_size
    before, after = (model(input_ids=ids).logits[:, :-1].float() for ids in (input_ids, changed))
    model.train(was_training)
    if (after - before).abs().max() > TOLERANCE * before.abs().max():
        kind = model.config.model_type
        raise UsageError(
            f"task=causal_lm: {kind} sees the tokens that it is to predict; take a decoder, as GPT-2 or Llama"
        )


WAY_OUT = "data.batching=padded trains it one document a row"


@torch.no_grad()
def check_isolation(model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> None:
    """Perturbs one document of a packed batch and sees that no other document's hidden states move.

    Args:
        inputs: input_ids, position_ids and cu_seqlens of a batch, on the model's device.

    Raises:
        UsageError: the model sees across documents, whatever its attention was asked to do.
    """
    shape = model.config.get_text_config()  # some models put their windows into a mask that they don't make for us
    check_wishes({name: getattr(shape, name, None) for name in NARROWER}, inputs["input_ids"].shape[1])
    was_training = model.training
    model.eval()
    before = model.base_model(**inputs, use_cache=False).last_hidden_state.flatten(0, 1)
    first, end = inputs["cu_seqlens"][:2].tolist()
    perturbed = inputs["input_ids"].clone().flatten()
    perturbed[first:end] = (perturbed[first:end] + 1) % model.config.vocab_size
    inputs = {**inputs, "input_ids": perturbed.view_as(inputs["input_ids"])}
    moved = (model.base_model(**inputs, use_cache=False).last_hidden_state.flatten(0, 1) - before).abs().amax(-1)
    model.train(was_training)
    if not moved[:end].any():
        raise RuntimeError("the isolation probe moved nothing: it can't judge this model")
    if moved[end:].max() > TOLERANCE * before.abs().max():
        raise UsageError(
            f"data.batching=packed: {model.config.model_type} lets one document of a row see another; {WAY_OUT}"
        )
