"""What is computed from sums over tokens. Pure functions; sums first, one division at the end."""

import math
from typing import Any

import numpy as np
from torch import nn


def language_model_metrics(loss: float, tokens: float, text_bytes: float) -> dict[str, float]:
    """The figures of a language model from its sums over predicted tokens.

    Args:
        loss: sum of the tokens' losses, in nats.
        tokens: how many were predicted.
        text_bytes: UTF-8 bytes of the text they stand for.

    Returns:
        `loss` in nats per token, `perplexity` = exp(loss), and `bits_per_byte`, which models of different
        tokenizers share: loss in bits over bytes of text.
    """
    mean = loss / tokens if tokens else math.nan
    return {
        "loss": mean,
        "perplexity": math.exp(min(mean, 700.0)),  # exp(709.8) overflows a float64
        "bits_per_byte": loss / math.log(2) / text_bytes if text_bytes else math.nan,
    }


def flops_per_token(model: nn.Module, window_lengths: np.ndarray) -> float:
    """Floating-point operations of training on one token, forward and backward, with nothing made twice.

    Two for each multiplied weight forward and four backward, and 12 * layers * width for each token that attention sees
    (Chowdhery et al., "PaLM", 2022, appendix B; there it is taken to see the whole row, here only what is looked at).

    Args:
        model: a transformers model; of a mixture of experts all would count.
        window_lengths: (S,) tokens of the windows that it trains on.
    """
    # An embedding is looked up, not multiplied; one that is tied to the head counts as the head's.
    weights = {
        id(weight): weight.numel()
        for module in model.modules()
        if not isinstance(module, nn.Embedding)
        for weight in module.parameters(recurse=False)
    }
    seen = float((window_lengths * (window_lengths + 1) / 2).sum() / window_lengths.sum())
    shape: Any = model.config
    config = shape.get_text_config()
    return 6 * sum(weights.values()) + 12 * config.num_hidden_layers * config.hidden_size * seen
