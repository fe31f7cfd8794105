"""Packed documents: the same logits, losses and gradients as each document on its own."""

import inspect
from contextlib import nullcontext
from itertools import pairwise

import pytest
import tiny
import torch
from transformers import (
    AttentionMaskInterface,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    RemBertConfig,
    RemBertForCausalLM,
)

from domaintune.config.schema import OptimConfig, SchedulerConfig
from domaintune.data.batching import pack, pad
from domaintune.errors import UsageError
from domaintune.kernels import attention
from domaintune.kernels.attention import check_causal, check_isolation, isolate_documents, make_masks_unasked
from domaintune.tasks.causal_lm import CausalLM, model_inputs

BLOCK, VOCABULARY = 32, 97
LENGTHS = [[10, 22], [7, 2, 20], [32]]  # the second row has three tokens of padding


def gpt2() -> PreTrainedModel:
    sizes = {"n_layer": 2, "n_embd": 32, "n_head": 4, "vocab_size": VOCABULARY, "n_positions": 64}
    return GPT2LMHeadModel(
        GPT2Config(**sizes, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, bos_token_id=0, eos_token_id=0)
    )


def llama() -> PreTrainedModel:
    heads = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    sizes = {"hidden_size": 32, "intermediate_size": 64, "vocab_size": VOCABULARY, "max_position_embeddings": 64}
    return LlamaForCausalLM(LlamaConfig(**heads, **sizes))


def rows():
    generator = torch.Generator().manual_seed(0)
    return [[tiny.window(torch.randint(VOCABULARY, (n,), generator=generator), n) for n in row] for row in LENGTHS]


def task(model: PreTrainedModel) -> CausalLM:
    return CausalLM(model, OptimConfig(lr=1e-3), SchedulerConfig(name="constant"))


def loss_and_gradient(made: CausalLM, batches) -> tuple[float, torch.Tensor]:
    made.zero_grad()
    total = sum(made(batch)[0] for batch in batches)
    total.backward()
    return float(total.detach()), torch.cat([p.grad.flatten() for p in made.parameters()])


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "t5"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("padding", [0, 5])
def test_masks_that_are_made_unasked_change_nothing(
    family: str, attention: str, padding: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("sdpa", "eager"):  # put back afterwards
        monkeypatch.setitem(AttentionMaskInterface._global_mapping, name, AttentionMaskInterface()[name])
    torch.manual_seed(0)
    model = {"bert": tiny.bert, "gpt2": gpt2, "llama": llama, "t5": tiny.t5}[family]().eval()
    model.set_attn_implementation(attention)
    ids = torch.randint(90, (3, 11))
    mask = torch.ones_like(ids)
    mask[1, 11 - padding :] = 0
    inputs = {"input_ids": ids, "attention_mask": mask, **({"decoder_input_ids": ids} if family == "t5" else {})}

    def states_and_gradient() -> list[torch.Tensor]:
        output = model(**inputs)
        states = output[0] * mask[..., None] if family != "t5" else output[0]  # what stands on padding is nobody's
        return [states, *torch.autograd.grad(states.square().mean(), list(model.parameters()), allow_unused=True)]

    before = states_and_gradient()
    attentions = []
    make_masks_unasked()
    for name in ("sdpa", "eager"):
        made = AttentionMaskInterface()[name]
        monkeypatch.setitem(
            AttentionMaskInterface._global_mapping,
            name,
            lambda *a, made=made, **k: attentions.append(made(*a, **k)) or attentions[-1],
        )
    for wanted, got in zip(before, states_and_gradient(), strict=True):
        assert (wanted is None) == (got is None)
        if wanted is not None:
            torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)
    assert any(made is not None for made in attentions)


def varlen_by_hand(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale, window_size):
    """What torch's kernel computes on a GPU, from the definition of attention; (T, H, D)."""
    assert window_size == (-1, 0)
    assert cu_seq_q.dtype == torch.int32
    assert max_q == max_k >= int(cu_seq_q.diff().max())
    assert query.shape == key.shape == value.shape
    outputs = []
    for first, end in pairwise(cu_seq_q.tolist()):
        scores = torch.einsum("thd,shd->hts", query[first:end], key[first:end])
        scores = scores * (query.shape[-1] ** -0.5 if scale is None else scale)
        later = torch.ones_like(scores[0], dtype=torch.bool).triu(1)
        outputs.append(
            torch.einsum("hts,shd->thd", scores.masked_fill(later, -torch.inf).softmax(-1), value[first:end])
        )
    return torch.cat(outputs)


def test_the_kernel_for_variable_lengths_takes_what_these_tests_hand_it():
    given = inspect.signature(torch.nn.attention.varlen.varlen_attn).parameters
    assert set(inspect.signature(varlen_by_hand).parameters) <= set(given)
    assert not attention.fits_varlen(torch.zeros(1, 2, 8, 16, dtype=torch.bfloat16), 0.0), "a CPU has none"


@pytest.mark.parametrize("shape", [gpt2, llama])
@pytest.mark.parametrize("kernel", ["each document", "block mask", "varlen"])
def test_loss_and_gradients_equal_those_of_the_documents_one_at_a_time(shape, kernel, monkeypatch):
    torch.manual_seed(0)
    model = shape()
    alone = [pad([window], 0) for row in rows() for window in row]
    expected, gradient = loss_and_gradient(task(model), alone)
    isolate_documents(model)
    if kernel == "each document":
        monkeypatch.setattr(attention, "MASKED_UP_TO", BLOCK - 1)
    if kernel == "varlen":
        monkeypatch.setattr(attention, "fits_varlen", lambda *_: True)
        monkeypatch.setattr(attention, "varlen_attn", varlen_by_hand)
    loss, packed = loss_and_gradient(task(model), [pack(rows(), BLOCK, 0)])
    assert loss == pytest.approx(expected, rel=1e-5)
    assert (packed - gradient).norm() <= 1e-5 * gradient.norm()


@pytest.mark.slow
@pytest.mark.parametrize("shape", [gpt2, llama])
def test_compiled_they_are_the_same_too_and_other_documents_compile_nothing_anew(shape):
    torch.manual_seed(0)
    model = shape()
    alone = [pad([window], 0) for row in rows() for window in row]
    expected, gradient = loss_and_gradient(task(model), alone)
    isolate_documents(model)
    made = CausalLM(model, OptimConfig(lr=1e-3), SchedulerConfig(name="constant"), compile_for=(len(LENGTHS), BLOCK))
    used = []
    compiled = made.compiled
    made.compiled = lambda **inputs: used.append(len(inputs["cu_seqlens"])) or compiled(**inputs)
    loss, packed = loss_and_gradient(made, [pack(rows(), BLOCK, 0)])
    assert loss == pytest.approx(expected, rel=1e-5)
    assert (packed - gradient).norm() <= 1e-5 * gradient.norm()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for lengths in ([[5, 6, 7], [32], [16, 16]], [[32], [32], [32]], [[2] * 16, [3] * 10, [4, 20]]):
            other = [[tiny.window(torch.randint(VOCABULARY, (n,)), n) for n in row] for row in lengths]
            wanted, by_hand = loss_and_gradient(task(model), [pack(other, BLOCK, 0)])
            loss, packed = loss_and_gradient(made, [pack(other, BLOCK, 0)])
            assert loss == pytest.approx(wanted, rel=1e-5)
            assert (packed - by_hand).norm() <= 1e-5 * by_hand.norm()
    assert len(used) == 4, "the compiled model was used for every batch of its shape"
    loss_and_gradient(made, [pack(other[:2], BLOCK, 0)])
    made.eval()(pack(other, BLOCK, 0))
    assert len(used) == 4, "and for no other, nor for evaluation"


def test_under_autocast_queries_and_keys_are_what_values_are(monkeypatch):
    """Rotary positions leave a Llama's in fp32, which no kernel takes beside values in bf16."""
    seen = []
    monkeypatch.setattr(attention, "fits_varlen", lambda query, _dropout: seen.append(query.dtype))
    model = llama()
    isolate_documents(model)
    with torch.autocast("cpu", torch.bfloat16):
        model(**model_inputs(pack(rows(), BLOCK, 0)), use_cache=False)
    assert seen == [torch.bfloat16] * 2


@pytest.mark.slow
def test_a_llama_compiles_under_autocast():
    torch.manual_seed(0)
    model = llama()
    isolate_documents(model)
    made = CausalLM(model, OptimConfig(lr=1e-3), SchedulerConfig(name="constant"), compile_for=(len(LENGTHS), BLOCK))
    with torch.autocast("cpu", torch.bfloat16):
        expected, gradient = loss_and_gradient(task(model), [pack(rows(), BLOCK, 0)])
        loss, compiled = loss_and_gradient(made, [pack(rows(), BLOCK, 0)])
    assert loss == pytest.approx(expected, rel=1e-2)
    assert (compiled - gradient).norm() <= 5e-2 * gradient.norm()


def test_what_packed_rows_lack_is_refused():
    inputs = model_inputs(pack(rows(), BLOCK, 0))
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    heads = {"num_key_value_heads": 2, "vocab_size": VOCABULARY, "max_position_embeddings": 64}
    wide, narrow = (MistralForCausalLM(MistralConfig(sliding_window=n, **sizes, **heads)) for n in (BLOCK, BLOCK // 2))
    capped = tiny.gemma2()
    for model, words in ((wide, None), (narrow, "sliding_window=16"), (capped, "softcap")):
        isolate_documents(model)
        with pytest.raises(UsageError, match=f"{words}.*batching=padded") if words else nullcontext():
            check_isolation(model, {**inputs, "input_ids": inputs["input_ids"] % tiny.VOCABULARY})


@pytest.mark.parametrize("shape", [gpt2, llama])
def test_the_probe_passes_isolated_documents_and_catches_a_leak(shape):
    torch.manual_seed(0)
    inputs = model_inputs(pack(rows(), BLOCK, 0))
    model = shape()
    isolate_documents(model)
    check_isolation(model, inputs)
    # Isolation broken on purpose: boundaries that the model never hears of, positions that never restart.
    leaking = {"input_ids": inputs["input_ids"], "cu_seqlens": inputs["cu_seqlens"]}
    model.set_attn_implementation("eager")
    with pytest.raises(UsageError, match=r"data\.batching=padded"):
        check_isolation(model, leaking)


def test_without_boundaries_it_is_plain_causal_attention():
    torch.manual_seed(0)
    model = gpt2().eval()
    ids = torch.randint(VOCABULARY, (2, 16))
    expected = model(input_ids=ids, use_cache=False).logits
    isolate_documents(model)
    assert torch.allclose(model(input_ids=ids, use_cache=False).logits, expected, atol=1e-5)


def test_generation_is_the_same_under_it():
    torch.manual_seed(0)
    model = gpt2().eval()
    ids = torch.randint(1, VOCABULARY, (1, 8))
    settings = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0, "attention_mask": torch.ones_like(ids)}
    expected = model.generate(ids, **settings)
    isolate_documents(model)
    assert torch.equal(model.generate(ids, **settings), expected)


def test_a_model_that_sees_what_it_is_to_predict_is_refused() -> None:
    """transformers has a causal head for models that are none unless their config says `is_decoder`."""
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    ids = torch.arange(5, 15)[None]
    for decodes in (True, False):
        model = RemBertForCausalLM(RemBertConfig(vocab_size=40, is_decoder=decodes, input_embedding_size=32, **small))
        for weight in model.parameters():  # as large as training makes them
            weight.data.mul_(8 if weight.ndim > 1 else 1)
        model.train()
        if decodes:
            check_causal(model, ids)
        else:
            with pytest.raises(UsageError, match="rembert sees the tokens that it is to predict"):
                check_causal(model, ids)
        assert model.training
    check_causal(tiny.gpt2(), ids)
