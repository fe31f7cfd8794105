"""What is computed from sums over tokens. Pure functions; sums first, one division at the end."""

import math
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import regex
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
        "perplexity": perplexity(mean),
        "bits_per_byte": loss / math.log(2) / text_bytes if text_bytes else math.nan,
    }


def perplexity(loss: float) -> float:
    """exp of a mean loss in nats."""
    return math.exp(min(loss, 700.0))  # exp(709.8) overflows a float64


def flops_per_token(model: nn.Module, window_lengths: np.ndarray) -> float:
    """Floating-point operations of training on one token, forward and backward, with nothing made twice.

    Two for each multiplied weight forward and four backward (two where it is frozen), and 12 * layers * width for each
    token that attention sees (Chowdhery et al., "PaLM", 2022, appendix B; there it is taken to see the whole row, here
    only what is looked at).

    Args:
        model: a transformers model; of a mixture of experts all would count.
        window_lengths: (S,) tokens of the windows that it trains on.
    """
    # An embedding is looked up, not multiplied; one that is tied to the head counts as the head's.
    weights = {
        id(weight): weight.numel() * (6 if weight.requires_grad else 4)
        for module in model.modules()
        if not isinstance(module, nn.Embedding)
        for weight in module.parameters(recurse=False)
    }
    seen = float((window_lengths * (window_lengths + 1) / 2).sum() / window_lengths.sum())
    shape: Any = model.config
    config = shape.get_text_config()
    return sum(weights.values()) + 12 * config.num_hidden_layers * config.hidden_size * seen


def classification_metrics(
    loss: float, weight: float, right: float, table: npt.NDArray[np.float64], names: Sequence[str], several: bool
) -> dict[str, float]:
    """The figures of a classifier from its sums over texts.

    Args:
        loss, weight: sum of the weighted losses, and of the weights; of several labels a text the number of texts.
        right: texts whose labels were all given and no other.
        table: (K, K) texts of a class that were given each class; where a text may have several labels (K, 3) how often
            a label was found, missed and wrongly given.
        names: of the classes.

    Returns:
        `loss`, `accuracy`, `f1` and each class's `f1/NAME`, of one that occurs neither as a label nor as a guess 0.
        The mean F1 is scikit-learn's macro average: where a text has one label such a class counts for nothing, where
        it may have several it counts as 0.
    """
    found = table[:, 0] if several else np.diag(table)
    missed = table[:, 1] if several else table.sum(1) - found
    wrong = table[:, 2] if several else table.sum(0) - found
    f1 = 2 * found / np.maximum(2 * found + missed + wrong, 1)
    counted = np.full(len(f1), True) if several else found + missed + wrong > 0
    texts = weight if several else table.sum()
    return {
        "loss": loss / weight if weight else math.nan,
        "accuracy": right / texts if texts else math.nan,
        "f1": float(f1[counted].mean()) if counted.any() else math.nan,
        **{f"f1/{name}": float(value) for name, value in zip(names, f1, strict=True)},
    }


def entities_of(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """(kind, first word, last word) of the entities of a sentence, as seqeval finds them unless it is strict.

    An I- that follows nothing of its kind begins an entity; E- and S- of other schemes are understood too (Nakayama,
    "seqeval", 2018; after the Perl program of CoNLL-2000).
    """
    found, first = set(), 0
    before, kind_before = "O", ""
    for place, tag in enumerate([*tags, "O"]):
        prefix, _, kind = tag.partition("-")
        new = prefix in ("B", "S") or before in ("E", "S", "O") or kind != kind_before
        if before != "O" and (new or prefix == "O"):
            found.add((kind_before, first, place - 1))
        if prefix != "O" and new:
            first = place
        before, kind_before = prefix, kind
    return found


def count_entities(sentences: Sequence[tuple[Sequence[str], Sequence[str]]]) -> dict[str, list[int]]:
    """{kind: [right, given, true]} over sentences of (true, given) tags; right is an entity given as it is."""
    counts: dict[str, list[int]] = {}
    for true_tags, given_tags in sentences:
        true, given = entities_of(true_tags), entities_of(given_tags)
        for number, entities in enumerate((true & given, given, true)):
            for kind, _, _ in entities:
                counts.setdefault(kind, [0, 0, 0])[number] += 1
    return counts


def entity_metrics(loss: float, words: float, counts: dict[str, list[int]], kinds: Sequence[str]) -> dict[str, float]:
    """`loss` per word; `precision`, `recall` and `f1` over all entities; each kind's `f1/KIND`. Without any, 0."""
    right, given, true = (sum(of_kind[number] for of_kind in counts.values()) for number in range(3))

    def f1(right: int, given: int, true: int) -> float:
        return 2 * right / (given + true) if right else 0.0

    return {
        "loss": loss / words if words else math.nan,
        "precision": right / given if given else 0.0,
        "recall": right / true if true else 0.0,
        "f1": f1(right, given, true),
        **{f"f1/{kind}": f1(*counts.get(kind, (0, 0, 0))) for kind in kinds},
    }


_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
_WORD = regex.compile(_UNSPACED + r"\p{M}*|(?:(?!" + _UNSPACED + r")[\p{L}\p{N}\p{M}])+")


def words_of(text: str) -> list[str]:
    """The words of a text, in composed form; of scripts without spaces between words its characters."""
    return list(_WORD.findall(unicodedata.normalize("NFC", text)))


def overlap_metrics(written: list[str], wanted: list[str]) -> dict[str, float]:
    """F1 of `rouge1`, `rouge2`, `rougeL` (Lin, 2004), the mean over texts, and `chrf` (Popovic, 2015) over all of them.

    All from 0 to 1, by torchmetrics. Empty where there are no texts.

    ROUGE counts words in lower case. torchmetrics' own know a to z and 0 to 9 alone; here the letters of all languages
    count, and of scripts that put no space between words each character is one.
    """
    if not wanted:
        return {}
    from torchmetrics.functional.text import chrf_score, rouge_score

    keys = ("rouge1", "rouge2", "rougeL")  # rougeLsum downloads data
    scores = rouge_score(written, wanted, rouge_keys=keys, normalizer=str.lower, tokenizer=words_of)
    chrf: Any = chrf_score(written, [[text] for text in wanted], n_word_order=0)
    return {**{key: float(scores[f"{key}_fmeasure"]) for key in keys}, "chrf": float(chrf)}
