import math

import numpy as np
import pytest
import tiny

from domaintune.tasks.metrics import flops_per_token, language_model_metrics


def test_four_tokens_of_one_bit_each_over_two_bytes() -> None:
    metrics = language_model_metrics(loss=4 * math.log(2), tokens=4, text_bytes=2)
    assert metrics == {"loss": math.log(2), "perplexity": pytest.approx(2.0), "bits_per_byte": pytest.approx(2.0)}


def test_bits_per_byte_do_not_depend_on_how_text_is_cut_into_tokens() -> None:
    coarse, fine = (language_model_metrics(30.0, tokens, 40)["bits_per_byte"] for tokens in (10, 35))
    assert coarse == fine == pytest.approx(30.0 / math.log(2) / 40)


def test_without_tokens_or_bytes_a_figure_is_not_a_number() -> None:
    assert all(math.isnan(value) for value in language_model_metrics(0.0, 0, 0).values())
    assert math.isnan(language_model_metrics(1.0, 1, 0)["bits_per_byte"])


def test_a_loss_that_is_not_a_number_stays_one() -> None:
    assert all(math.isnan(value) for value in language_model_metrics(math.nan, 4, 2).values())


def test_a_huge_loss_does_not_overflow() -> None:
    assert math.isfinite(language_model_metrics(1e6, 1, 1)["perplexity"])


@pytest.mark.parametrize("tied", [True, False])
def test_the_flops_of_a_token_are_six_for_each_multiplied_weight_and_those_of_attention(tied: bool) -> None:
    model = tiny.gpt2(tie_word_embeddings=tied)
    blocks = sum(weight.numel() for weight in model.transformer.h.parameters()) + 2 * 32  # and the last norm
    head = tiny.VOCABULARY * 32
    seen = (1 + 2 + 3 + 1 + 2) / 5  # tokens that attention looks at, in windows of 3 and 2
    found = flops_per_token(model, np.array([3, 2]))
    assert found == pytest.approx(6 * (blocks + head) + 12 * 2 * 32 * seen)


def test_a_frozen_weight_needs_no_gradient_of_its_own() -> None:
    model, lengths = tiny.gpt2(), np.array([3])
    whole = flops_per_token(model, lengths)
    frozen = model.transformer.h[0].mlp.c_fc.weight.requires_grad_(False)
    assert flops_per_token(model, lengths) == whole - 2 * frozen.numel()
