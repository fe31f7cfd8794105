"""Prompts -> text: shared by the command generate and the callback that writes samples to TensorBoard."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig, PreTrainedModel

from domaintune.config.schema import DataConfig
from domaintune.data.chatting import Chats, stop_ids
from domaintune.data.encoder import Encoder, specials_of
from domaintune.errors import UsageError


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn.

    Attributes:
        max_new_tokens: the longest continuation.
        temperature: 0 takes the likeliest token; 1 draws from the model's own distribution.
        top_p: draws among the likeliest tokens whose probabilities add up to this (Holtzman et al., 2020).
        seed: the same seed gives the same text, and leaves the global random state as it was.
    """

    max_new_tokens: int = 80
    temperature: float = 0.8
    top_p: float = 0.95
    seed: int = 0


def continue_text(
    model: PreTrainedModel, tokenizer: Any, prompt: str | list[int], sampling: Sampling, streamer: Any = None
) -> str:
    """What the model writes after `prompt` (without it), a text or token ids. An empty prompt starts a document.

    A prompt that leaves no room for `max_new_tokens` loses its beginning.

    Raises:
        UsageError: `max_new_tokens` alone fills the model's context.
    """
    given = encode_prompt(tokenizer, Encoder(tokenizer), prompt, model) if isinstance(prompt, str) else prompt
    ids = fit_prompt(given, sampling.max_new_tokens, model)
    return continue_all(model, tokenizer, [ids], sampling, batch_size=1, streamer=streamer)[0]


def continue_all(
    model: PreTrainedModel,
    tokenizer: Any,
    prompts: Sequence[torch.Tensor],
    sampling: Sampling,
    batch_size: int,
    **more: Any,
) -> list[str]:
    """What a model writes for the (T,) ids of each prompt or source.

    In batches of similar lengths: sources are padded on the right, prompts, which are gone on with, on the left.
    Neither is seen, and positions begin with the first token, so the likeliest tokens are those of a prompt alone.
    What is drawn depends on the prompts beside it, too. Attention must take a mask, as it does before
    `isolate_documents`, or each batch be of one prompt.

    Args:
        more: for transformers' `generate`: the `streamer` of a single prompt, or `synced_gpus=True` where all processes
            call this with as many prompts and write on until the last of them has ended.
    """
    config = generation_config(tokenizer, sampling, model)
    ends = stop_ids(tokenizer, model)
    side = "right" if model.config.is_encoder_decoder else "left"
    order = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
    texts: dict[int, str] = {}
    was_training = model.training
    model.eval()
    with random_state_kept(model.device), torch.no_grad():
        torch.manual_seed(sampling.seed)
        for first in range(0, len(order), batch_size):
            places = order[first : first + batch_size]
            rows = [prompts[place].to(model.device) for place in places]
            ids = pad_sequence(rows, batch_first=True, padding_value=config.pad_token_id, padding_side=side)
            seen = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True, padding_side=side)
            written = _written(model, ids, seen, config, **more).tolist()
            texts |= {place: text_of(tokenizer, row, ends) for place, row in zip(places, written, strict=True)}
    model.train(was_training)
    return [texts[place] for place in range(len(prompts))]


def text_of(tokenizer: Any, ids: list[int], ends: list[int]) -> str:
    """What a model has written, up to the first of the tokens that end it: not all of these are special ones."""
    stop = next((place for place, number in enumerate(ids) if number in ends), len(ids))
    return without_half(str(tokenizer.decode(ids[:stop], skip_special_tokens=True)))


def without_half(text: str) -> str:
    """A text without the bytes at its end that are no whole character: the model was stopped within one."""
    return text.rstrip("\ufffd")


def run_context(trainer: Any, model: PreTrainedModel) -> AbstractContextManager[Any]:
    """What a model that is trained runs in outside of Lightning's steps: autocast where its weights have two dtypes."""
    mixed = len({parameter.dtype for parameter in model.parameters()}) > 1
    return trainer.precision_plugin.forward_context() if mixed else nullcontext()


def _written(
    model: PreTrainedModel, ids: torch.Tensor, seen: torch.Tensor, config: GenerationConfig, **more: Any
) -> torch.Tensor:
    """(B, U) what follows (B, T) ids, or the sign that begins a target.

    Nothing but `config` decides: transformers would add what a checkpoint's own has. `more` is for its `generate`.
    """
    own, model.generation_config = model.generation_config, config
    try:
        output: torch.Tensor = model.generate(ids, attention_mask=seen, generation_config=config, **more)
    finally:
        model.generation_config = own
    return output[:, 1 if model.config.is_encoder_decoder else ids.shape[1] :]


def encode_prompt(
    tokenizer: Any, encoder: Encoder, prompt: str, model: PreTrainedModel, data: DataConfig | None = None
) -> list[int]:
    """The ids of a text, as training encodes what stands before that which is learnt: special tokens' names are text.

    An empty prompt begins a document: by what the tokenizer puts before a text, or by the end-of-text token, which
    documents follow in training.

    Args:
        data: that the model was trained on. Its prefix is put before a source, which is cut off at its block size.
    """
    specials = specials_of(tokenizer)
    if model.config.is_encoder_decoder:
        ids = encoder.ids((data.prefix if data else "") + prompt)
        return specials.around(np.array(ids[: data.block_size - len(specials)] if data else ids)).tolist()
    ids = encoder.ids(prompt)
    return [*specials.before.tolist(), *ids] or [tokenizer.eos_token_id]


def encode_question(tokenizer: Any, encoder: Encoder, text: str) -> list[int]:
    """The ids of a user's message that waits for its answer, as training has it.

    Raises:
        UsageError: there is no chat template, or it refuses the message.
    """
    if tokenizer.chat_template is None:
        raise UsageError("chat=true: the model has no chat template")
    try:
        return encoder.ids(*Chats(tokenizer, encoder).asked([{"role": "user", "content": text}]))
    except ValueError as error:
        raise UsageError(f"chat=true: {error}") from error


def fit_prompt(ids: list[int], max_new_tokens: int, model: PreTrainedModel) -> torch.Tensor:
    """(T,) ids of a prompt, whose beginning is cut off where there is no room for `max_new_tokens` after it.

    Raises:
        UsageError: `max_new_tokens` alone fills the model's context.
    """
    limit = getattr(model.config, "max_position_embeddings", None)
    if model.config.is_encoder_decoder:
        ids, limit = ids[:limit], None  # what is written has positions of its own
    if limit is not None:
        if max_new_tokens >= limit:
            raise UsageError(f"max_new_tokens={max_new_tokens}: the model has {limit} positions; at most {limit - 1}")
        ids = ids[-(limit - max_new_tokens) :]
    return torch.tensor(ids)


@contextmanager
def random_state_kept(device: torch.device) -> Iterator[None]:
    """Puts torch's random states back as they were, on the CPU and on `device`."""
    mps = torch.mps.get_rng_state() if device.type == "mps" else None
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield
    if mps is not None:
        torch.mps.set_rng_state(mps)


def generation_config(tokenizer: Any, sampling: Sampling, model: PreTrainedModel) -> GenerationConfig:
    """What transformers' `generate` takes to draw tokens so."""
    ends = stop_ids(tokenizer, model)
    common: dict[str, Any] = {
        "max_new_tokens": sampling.max_new_tokens,
        "eos_token_id": ends[0] if len(ends) == 1 else ends or None,
        "pad_token_id": tokenizer.eos_token_id,
    }
    if model.config.is_encoder_decoder:
        common["decoder_start_token_id"] = model.config.decoder_start_token_id
        if tokenizer.pad_token_id is not None:
            common["pad_token_id"] = tokenizer.pad_token_id
    if sampling.temperature == 0:
        return GenerationConfig(do_sample=False, **common)
    return GenerationConfig(do_sample=True, temperature=sampling.temperature, top_p=sampling.top_p, top_k=0, **common)
