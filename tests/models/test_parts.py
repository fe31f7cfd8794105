import pytest
import tiny
from torch import nn
from transformers import BertForSequenceClassification, GPT2ForSequenceClassification, PreTrainedModel

from domaintune.errors import UsageError
from domaintune.models.parts import freeze, head_parameters


def trained(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def classifier(model: PreTrainedModel) -> BertForSequenceClassification:
    return BertForSequenceClassification(model.config)


def test_the_head_of_a_classifier_is_what_is_not_the_body() -> None:
    assert set(head_parameters(GPT2ForSequenceClassification(tiny.gpt2().config))) == {"score.weight"}
    bert = {"bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight", "classifier.bias"}
    assert set(head_parameters(classifier(tiny.bert()))) == bert


def test_a_tied_head_is_the_embeddings() -> None:
    assert head_parameters(tiny.gpt2()) == {}
    assert set(head_parameters(tiny.llama())) == {"lm_head.weight"}


def test_frozen_is_what_the_patterns_match_and_nothing_else() -> None:
    model = tiny.gpt2()
    every = trained(model)
    freeze(model, ["transformer.w?e.*", "*.h.0.*"])
    assert every - trained(model) == {name for name in every if ".h.0." in name or ".wte." in name or ".wpe." in name}


def test_a_tied_weight_answers_to_each_of_its_names() -> None:
    model = tiny.gpt2()
    freeze(model, ["lm_head.weight"])
    assert "transformer.wte.weight" not in trained(model)


def test_freezing_everything_is_an_error() -> None:
    with pytest.raises(UsageError, match="leaves nothing to train"):
        freeze(tiny.gpt2(), ["*"])
