import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from peft import (
    AutoPeftModelForCausalLM,
    AutoPeftModelForSeq2SeqLM,
    AutoPeftModelForSequenceClassification,
    PeftModel,
)
from safetensors.torch import load_file
from torch import nn
from transformers import (
    BertForMaskedLM,
    BertForSequenceClassification,
    BertForTokenClassification,
    DistilBertConfig,
    DistilBertForMaskedLM,
    DistilBertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaForSequenceClassification,
)

from domaintune.config.schema import PeftConfig
from domaintune.config.tasks import declared_tasks
from domaintune.errors import UsageError
from domaintune.kernels.attention import check_isolation, isolate_documents
from domaintune.kernels.dropout import Dropout
from domaintune.models.adapters import adapted_layers, add_adapters, merge_adapters, save_adapter
from domaintune.models.loading import output_embedding
from domaintune.models.parts import head_parameters
from domaintune.tasks.base import task_class

IDS = torch.arange(24).view(2, 12)
ENCODER: dict[str, Any] = {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
DISTILBERT = DistilBertConfig(vocab_size=96, dim=24, hidden_dim=48, n_layers=2)
Make = Callable[[], Any]
MODELS = pytest.mark.parametrize("make", [tiny.gpt2, tiny.llama, tiny.t5], ids=["gpt2", "llama", "t5"])


def lora(**settings: Any) -> PeftConfig:
    return PeftConfig(**{"name": "lora", "rank": 4, "alpha": 8.0, "dropout": 0.0, **settings})


def adapted(model: Any, train_head: bool = False, seed: int = 0, **settings: Any) -> Any:
    add_adapters(model, lora(**settings), seed, train_head, base="some/model")
    return model


def moved(model: Any) -> Any:
    """With adapters as training might leave them."""
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.1)
    return model


def logits(model: Any) -> torch.Tensor:
    more = {"decoder_input_ids": IDS} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        return model.eval()(input_ids=IDS, **more).logits


def trained(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def adapters(model: nn.Module) -> set[str]:
    return {name for name in trained(model) if ".lora_" in name}


@MODELS
def test_untrained_adapters_change_nothing_and_the_class_stays(make: Make) -> None:
    model = make()
    before, kind = logits(model), type(model)
    adapted(model)
    torch.testing.assert_close(logits(model), before)
    assert type(model) is kind


@MODELS
def test_only_adapters_are_trained_in_every_linear_layer_but_the_output(make: Make) -> None:
    model = adapted(make())
    assert all(".lora_" in name for name in trained(model))
    assert "lm_head" not in adapted_layers(model)
    blocks = {name for name, layer in make().named_modules() if type(layer).__name__ in ("Linear", "Conv1D")}
    assert adapted_layers(model).keys() == blocks - {"lm_head"}


@MODELS
def test_merged_it_is_the_plain_model_with_the_same_logits(make: Make) -> None:
    model = moved(adapted(make()))
    wanted = logits(model)
    merge_adapters(model)
    assert model.state_dict().keys() == make().state_dict().keys()
    torch.testing.assert_close(logits(model), wanted)
    assert (logits(make()) - wanted).abs().max() > 1e-3


@MODELS
def test_the_peft_library_opens_the_saved_adapter(tmp_path: Path, make: Make) -> None:
    model = moved(adapted(make()))
    save_adapter(model, tmp_path)
    torch.testing.assert_close(logits(PeftModel.from_pretrained(make(), tmp_path)), logits(model))
    size = sum(weight.numel() for weight in load_file(tmp_path / "adapter_model.safetensors").values())
    assert size == sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


HEADS = {
    "gpt2 labels": lambda: GPT2ForSequenceClassification(tiny.gpt2(pad_token_id=0).config),
    "bert labels": lambda: BertForSequenceClassification(tiny.bert().config),
    "bert tags": lambda: BertForTokenClassification(tiny.bert().config),
    "bert masked": lambda: BertForMaskedLM(tiny.bert().config),
    "roberta labels": lambda: RobertaForSequenceClassification(RobertaConfig(**ENCODER)),
    "roberta masked": lambda: RobertaForMaskedLM(RobertaConfig(**ENCODER)),
    "distilbert labels": lambda: DistilBertForSequenceClassification(DISTILBERT),
    "distilbert masked": lambda: DistilBertForMaskedLM(DISTILBERT),
}


@pytest.mark.parametrize("targets", [None, ["*"]], ids=["default", "every"])
@pytest.mark.parametrize("make", HEADS.values(), ids=HEADS.keys())
def test_a_trained_head_is_saved_with_the_adapter(tmp_path: Path, make: Make, targets: list[str] | None) -> None:
    torch.manual_seed(0)
    base = make()
    model = moved(adapted(copy.deepcopy(base), train_head=True, targets=targets))
    assert head_parameters(model).keys() == head_parameters(base).keys() == trained(model) - adapters(model)
    save_adapter(model, tmp_path)
    torch.testing.assert_close(logits(PeftModel.from_pretrained(base, tmp_path)), logits(model))


def test_a_tied_output_layer_has_no_adapter_which_would_change_the_embeddings() -> None:
    model = moved(adapted(tiny.gpt2(), targets=["*"]))
    assert "lm_head" not in adapted_layers(model)
    wanted = logits(model)
    merge_adapters(model)
    torch.testing.assert_close(logits(model), wanted)
    assert "lm_head" in adapted_layers(adapted(tiny.llama(), targets=["*"]))
    with pytest.raises(UsageError, match=r"peft\.targets: lm_head matches nothing"):
        adapted(tiny.gpt2(), targets=["lm_head"])


def test_where_adapters_start_is_a_function_of_the_seed_and_leaves_the_global_state_alone() -> None:
    before = torch.random.get_rng_state()
    one, same, other = (adapted_layers(adapted(tiny.gpt2(), seed=seed)) for seed in (1, 1, 2))
    starts = [layers["transformer.h.0.attn.c_attn"].lora_A["default"].weight for layers in (one, same, other)]
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])
    torch.manual_seed(0)
    tiny.gpt2()
    adapted(tiny.gpt2())
    state = torch.random.get_rng_state()
    tiny.gpt2()
    assert torch.equal(state, torch.random.get_rng_state())
    torch.random.set_rng_state(before)


def test_targets_are_patterns_of_the_names_of_linear_layers() -> None:
    model = adapted(tiny.llama(), targets=["*.q_proj", "model.layers.1.mlp.*"])
    own = {f"model.layers.{layer}.self_attn.q_proj" for layer in (0, 1)}
    assert adapted_layers(model).keys() == own | {f"model.layers.1.mlp.{part}_proj" for part in ("gate", "up", "down")}


def test_a_target_that_matches_no_layer_is_told_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"peft\.targets: \*\.q_prj matches nothing; nearest are .*q_proj"):
        adapted(tiny.llama(), targets=["*.q_prj"])


@pytest.mark.parametrize("make", [tiny.gpt2, tiny.llama], ids=["gpt2", "llama"])
def test_what_is_looked_for_in_a_model_is_still_found(make: Make) -> None:
    model = adapted(make(), dropout=0.1)
    assert output_embedding(model) is model.lm_head.weight
    assert any(isinstance(layer, Dropout) and layer.p == 0.1 for layer in model.modules())
    assert not any(type(layer) is nn.Dropout for layer in model.modules())
    isolate_documents(model)
    places = torch.cat([torch.arange(5), torch.arange(7)])[None]
    check_isolation(
        model, {"input_ids": IDS[:1], "position_ids": places, "cu_seqlens": torch.tensor([0, 5, 12], dtype=torch.int32)}
    )


PEFT_TYPES = {name: task_class(task).head.peft_type for name, task in declared_tasks().items()}
AUTO = {"causal_lm": AutoPeftModelForCausalLM, "seq2seq": AutoPeftModelForSeq2SeqLM}


@pytest.mark.parametrize(("make", "task"), [(tiny.gpt2, "causal_lm"), (tiny.t5, "seq2seq")])
def test_an_adapter_alone_opens_by_its_config(tmp_path: Path, make: Make, task: str) -> None:
    make().save_pretrained(tmp_path / "base")
    model = make()
    add_adapters(
        model,
        lora(),
        0,
        train_head=False,
        base=str(tmp_path / "base"),
        peft_type=PEFT_TYPES[task],
    )
    save_adapter(moved(model), tmp_path / "adapter")
    assert torch.allclose(
        logits(AUTO[task].from_pretrained(tmp_path / "adapter").eval()), logits(model.eval()), atol=1e-5
    )


def test_an_adapter_of_labels_opens_with_their_number(tmp_path: Path) -> None:
    shape = {**tiny.OPENAI, "vocab_size": 96, "n_positions": 64, "num_labels": 3, "pad_token_id": 0}
    model = GPT2ForSequenceClassification(GPT2Config(**shape))
    tiny.gpt2().save_pretrained(tmp_path / "base")
    model.transformer.load_state_dict(tiny.gpt2().transformer.state_dict(), strict=False)
    name = "sequence_classification"
    add_adapters(
        model,
        lora(),
        0,
        train_head=True,
        base=str(tmp_path / "base"),
        peft_type=PEFT_TYPES[name],
    )
    save_adapter(moved(model), tmp_path / "adapter")
    opened = AutoPeftModelForSequenceClassification.from_pretrained(tmp_path / "adapter", num_labels=3)
    opened.config.pad_token_id = 0
    assert torch.allclose(logits(opened.eval()), logits(model.eval()), atol=1e-5)
