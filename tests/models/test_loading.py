import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    BertForSequenceClassification,
    BertForTokenClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    GPT2ForTokenClassification,
    GPT2LMHeadModel,
    MobileBertConfig,
    MobileBertForMaskedLM,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

from domaintune.config.schema import ModelConfig
from domaintune.errors import UsageError
from domaintune.models import loading
from domaintune.models.loading import load_model, load_tokenizer, output_embedding
from domaintune.models.locating import ASSETS, Checkpoint
from domaintune.tasks.causal_lm import CausalLM
from domaintune.tasks.seq2seq import Seq2Seq
from domaintune.tasks.sequence_classification import SequenceClassification
from domaintune.tasks.token_classification import TokenClassification

FP32 = torch.float32


def checkpoint(folder: Path) -> Checkpoint:
    return Checkpoint(str(folder), folder, "local folder")


def load(folder: Path, dtype: torch.dtype = FP32, seed: int = 0, **settings: Any) -> Any:
    config = ModelConfig(checkpoint=str(folder), **settings)
    return load_model(checkpoint(folder), config, CausalLM.head, dtype, seed)


def saved(folder: Path, model: PreTrainedModel) -> Path:
    model.save_pretrained(folder)
    return folder


def equal(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_have_the_dtype_that_is_asked_for_whatever_they_are_stored_in(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    stored = tiny.gpt2().to(torch.bfloat16)
    model = load(saved(tmp_path, stored), dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert equal(model, stored.to(dtype))


def test_a_loaded_model_is_in_train_mode(tmp_path: Path) -> None:
    assert load(saved(tmp_path, tiny.gpt2())).training


def test_random_weights_are_a_function_of_the_seed(tiny_checkpoint: Path) -> None:
    one, same, other = (load(tiny_checkpoint, seed=seed, init="random") for seed in (1, 1, 2))
    assert equal(one, same)
    assert not equal(one, other)
    assert not equal(one, load(tiny_checkpoint))


def test_random_weights_leave_the_global_random_state_alone(tiny_checkpoint: Path) -> None:
    before = torch.random.get_rng_state()
    load(tiny_checkpoint, seed=1, init="random")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_random_weights_need_no_weights_on_disk(tmp_path: Path) -> None:
    tiny.gpt2().config.save_pretrained(tmp_path)
    assert isinstance(load(tmp_path, init="random"), GPT2LMHeadModel)


def dropouts(model: nn.Module) -> set[float]:
    return {module.p for module in model.modules() if isinstance(module, nn.Dropout)}


def test_dropouts_of_gpt2_are_set(tmp_path: Path) -> None:
    folder = saved(tmp_path, tiny.gpt2(resid_pdrop=0.1, embd_pdrop=0.1, attn_pdrop=0.1))
    model = load(folder, dropout=0.25, attention_dropout=0.5)
    assert dropouts(model) == {0.25, 0.5}
    assert model.config.attn_pdrop == 0.5
    assert (model.config.resid_pdrop, model.config.embd_pdrop) == (0.25, 0.25)


def test_without_a_dropout_of_ones_own_the_checkpoints_is_kept_but_for_attention(tmp_path: Path) -> None:
    model = load(saved(tmp_path, tiny.gpt2(resid_pdrop=0.3, embd_pdrop=0.3, attn_pdrop=0.1)))
    assert (model.config.resid_pdrop, model.config.embd_pdrop, model.config.attn_pdrop) == (0.3, 0.3, 0.0)


def test_attention_dropout_of_llama_is_set(tmp_path: Path) -> None:
    assert load(saved(tmp_path, tiny.llama()), attention_dropout=0.5).config.attention_dropout == 0.5


def test_a_dropout_that_a_model_does_not_have_is_told(tmp_path: Path) -> None:
    folder = saved(tmp_path, tiny.llama())
    with pytest.raises(UsageError, match=r"model\.dropout=0\.1: llama has no dropout"):
        load(folder, dropout=0.1)
    assert load(folder, dropout=0.0).training


@pytest.mark.parametrize("kind", [DistilBertForSequenceClassification, GPT2ForTokenClassification])
def test_the_dropout_of_a_head_is_set_too(tmp_path: Path, kind: Any) -> None:
    small = {"dim": 24, "n_layers": 1} if kind.config_class is DistilBertConfig else tiny.OPENAI
    folder = saved(tmp_path, kind(kind.config_class(vocab_size=96, **small)))
    task = SequenceClassification if kind is DistilBertForSequenceClassification else TokenClassification
    config = ModelConfig(checkpoint=str(folder), dropout=0.0)
    assert dropouts(load_model(checkpoint(folder), config, task.head, FP32, 0)) == {0.0}


def head_for(*labels: str) -> dict[str, Any]:
    return {"num_labels": len(labels), "id2label": dict(enumerate(labels))}


def test_a_body_without_a_head_is_built_once_and_its_head_is_a_function_of_the_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved(tmp_path, tiny.bert())
    monkeypatch.setattr(loading, "_with_new_head", None)
    one, same, other = (
        load_model(checkpoint(folder), ModelConfig(), SequenceClassification.head, FP32, seed, **head_for("a", "b"))
        for seed in (1, 1, 2)
    )
    assert one.has_new_head
    assert equal(one, same)
    assert not torch.equal(one.classifier.weight, other.classifier.weight)
    assert float(one.classifier.weight.std()) == pytest.approx(one.config.initializer_range, rel=0.3)
    assert equal(one.bert.encoder, tiny.bert().encoder)


def test_a_head_for_other_labels_is_drawn_anew_even_where_it_has_as_many(tmp_path: Path) -> None:
    shape = tiny.bert().config
    for kind in (BertForSequenceClassification, BertForTokenClassification):  # of tags, what is pooled is missing too
        stored = kind(shape)
        folder = saved(tmp_path / kind.__name__, stored)
        head = head_for("a", "b")
        model = load_model(checkpoint(folder), ModelConfig(), SequenceClassification.head, FP32, 1, **head)
        assert model.has_new_head
        assert not torch.equal(model.classifier.weight, stored.classifier.weight)


def change_config(folder: Path, **settings: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


def drop_a_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["transformer.h.1.mlp.c_fc.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def cut_in_half(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "a missing weight": (drop_a_weight, r"transformer\.h\.1\.mlp\.c_fc\.weight"),
    "a layer too many in the config": (lambda folder: change_config(folder, n_layer=3), r"transformer\.h\.2"),
    "another width in the config": (lambda folder: change_config(folder, n_embd=64), "does not open"),
    "half a download": (cut_in_half, "does not open"),
    "an empty file": (lambda folder: (folder / "model.safetensors").write_bytes(b""), "does not open"),
    "a config that is no JSON": (lambda folder: (folder / "config.json").write_text("{"), "does not open"),
    "an unknown architecture": (lambda folder: change_config(folder, model_type="gpt99"), "gpt99"),
}


@pytest.mark.parametrize(("damage", "words"), DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_checkpoint_is_told(tmp_path: Path, damage: Callable[[Path], None], words: str) -> None:
    folder = saved(tmp_path, tiny.gpt2())
    damage(folder)
    with pytest.raises(UsageError, match=f"model.checkpoint={folder}.*{words}"):
        load(folder)


def test_a_checkpoint_of_another_kind_is_told(tmp_path: Path) -> None:
    shape = T5Config(vocab_size=96, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    folder = saved(tmp_path, T5ForConditionalGeneration(shape))
    with pytest.raises(UsageError, match="does not open as a causal LM"):
        load(folder)


def test_pickled_weights_are_not_opened(tmp_path: Path) -> None:
    model = tiny.gpt2()
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(UsageError, match="does not open"):
        load(tmp_path)


def test_the_embedded_tokenizer_is_fast_and_closes_documents() -> None:
    tokenizer = load_tokenizer(checkpoint(ASSETS / "gpt2_tiny"), CausalLM.head)
    assert tokenizer.is_fast
    assert tokenizer.eos_token == "<|endoftext|>"


def test_a_folder_without_a_tokenizer_is_told(tmp_path: Path) -> None:
    """transformers would make an empty one of the model's class, which turns every text into nothing."""
    folder = saved(tmp_path, tiny.gpt2())
    with pytest.raises(UsageError, match="tokenizer"):
        load_tokenizer(checkpoint(folder), CausalLM.head)


def test_a_damaged_tokenizer_is_told(tmp_path: Path, tiny_checkpoint: Path) -> None:
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "model")
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(UsageError, match="its tokenizer does not open"):
        load_tokenizer(checkpoint(folder), CausalLM.head)


def test_a_tokenizer_without_an_end_of_text_token_is_told(tmp_path: Path, tiny_checkpoint: Path) -> None:
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "model")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    with pytest.raises(UsageError, match="no end-of-text token"):
        load_tokenizer(checkpoint(folder), CausalLM.head)


@pytest.mark.parametrize("make", [tiny.gpt2, tiny.llama], ids=["gpt2", "llama"])
def test_the_output_embedding_of_a_linear_head_is_its_weight(make: Callable[[], Any]) -> None:
    model = make()
    assert output_embedding(model) is model.lm_head.weight


@pytest.mark.parametrize("make", [tiny.gptj, tiny.phi, tiny.cohere, tiny.granite, tiny.gemma2])
def test_a_head_that_does_more_has_no_output_embedding(make: Callable[[], Any]) -> None:
    """A bias (GPT-J, Phi), scaled logits (Cohere, Granite), capped logits (Gemma 2)."""
    assert output_embedding(make()) is None


@pytest.mark.parametrize("training", [True, False])
def test_looking_for_the_output_embedding_keeps_the_mode(training: bool) -> None:
    model = tiny.gpt2(resid_pdrop=0.5).train(training)
    assert output_embedding(model) is not None  # also with dropout switched on
    assert model.training is training


def test_the_fused_activation_gives_the_logits_of_gelu_new(tmp_path: Path) -> None:
    stored = tiny.gpt2(activation_function="gelu_new").eval()
    for parameter in stored.parameters():
        nn.init.normal_(parameter, std=0.3)  # so that the activation sees more than its middle
    model, ids = load(saved(tmp_path, stored)).eval(), torch.arange(60)[None]
    assert model.config.activation_function == "gelu_pytorch_tanh"
    with torch.no_grad():
        got, wanted = model(ids).logits, stored(ids).logits
    assert (got - wanted).norm() <= 1e-5 * wanted.norm()


def test_another_activation_is_left_alone(tmp_path: Path) -> None:
    folder = saved(tmp_path, tiny.gpt2(activation_function="relu"))
    assert load(folder).config.activation_function == "relu"


def test_gradient_checkpointing_changes_no_gradient_and_drops_the_same(tmp_path: Path) -> None:
    tiny.gpt2().save_pretrained(tmp_path)
    gradients = []
    for wanted in (False, True):
        model = load(tmp_path, dropout=0.2, gradient_checkpointing=wanted)
        assert model.is_gradient_checkpointing == wanted
        ids = torch.arange(24).view(2, 12)
        torch.manual_seed(5)
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        gradients.append(torch.cat([weight.grad.flatten() for weight in model.parameters()]))
    assert torch.equal(*gradients)


def test_a_model_that_cannot_checkpoint_gradients_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.gpt2().save_pretrained(tmp_path)
    monkeypatch.setattr(GPT2LMHeadModel, "supports_gradient_checkpointing", False)
    with pytest.raises(UsageError, match="gradient_checkpointing=true: gpt2"):
        load(tmp_path, gradient_checkpointing=True)


@pytest.mark.parametrize("make", [tiny.gpt2, tiny.llama, tiny.t5], ids=["gpt2", "llama", "t5"])
def test_embeddings_are_added_from_the_seed_and_a_tied_head_stays_tied(
    tmp_path: Path, make: Callable[..., Any]
) -> None:
    stored = make()
    folder = saved(tmp_path, stored)
    task = Seq2Seq if stored.config.is_encoder_decoder else CausalLM
    config = ModelConfig(resize_embeddings=True)
    one, same, other = (load_model(checkpoint(folder), config, task.head, FP32, seed, 99) for seed in (1, 1, 2))
    embeddings = one.get_input_embeddings().weight
    assert embeddings.shape[0] == one.get_output_embeddings().out_features == one.config.vocab_size == 99
    assert torch.equal(embeddings[:96], stored.get_input_embeddings().weight)
    assert equal(one, same)
    assert not torch.equal(embeddings[96:], other.get_input_embeddings().weight[96:])
    tied = [model.get_output_embeddings().weight is model.get_input_embeddings().weight for model in (stored, one)]
    assert tied[0] == tied[1]


def test_more_tokens_than_embeddings_are_refused_unless_they_are_to_be_added(tmp_path: Path) -> None:
    folder = saved(tmp_path, tiny.gpt2())
    with pytest.raises(UsageError, match=r"has 99 tokens and its model 96 embeddings; python train\.py with"):
        load_model(checkpoint(folder), ModelConfig(), CausalLM.head, FP32, 0, 99)
    assert load_model(checkpoint(folder), ModelConfig(), CausalLM.head, FP32, 0, 90).config.vocab_size == 96


def test_random_weights_have_as_many_embeddings_as_there_are_tokens(tmp_path: Path) -> None:
    folder = saved(tmp_path, tiny.gpt2())
    sizes = [
        load_model(checkpoint(folder), ModelConfig(init="random"), CausalLM.head, FP32, 0, tokens).config.vocab_size
        for tokens in (90, 99)
    ]
    assert sizes == [96, 99]


def test_the_padding_of_a_tied_mobilebert_stays_silent_while_it_is_trained() -> None:
    small = {"num_hidden_layers": 1, "num_attention_heads": 2, "intra_bottleneck_size": 32, "true_hidden_size": 32}
    shape = MobileBertConfig(vocab_size=40, hidden_size=32, embedding_size=32, pad_token_id=1, **small)
    model = MobileBertForMaskedLM(shape)
    loading._silence_padding(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0)
    ids = torch.arange(2, 12)[None]
    for _ in range(3):
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    weight = model.get_input_embeddings().weight
    assert model.get_output_embeddings().weight is weight
    assert not weight[1].any()
    assert weight.std(1).ne(0).sum() == 39
