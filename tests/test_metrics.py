import math

import pytest

from domaintune.metrics import language_model_metrics


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
