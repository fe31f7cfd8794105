"""What is computed from sums over tokens. Pure functions; sums first, one division at the end."""

import math


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
