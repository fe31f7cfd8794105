"""Attention of packed documents and the loss on a GPU, against their plain forms in fp32."""

import importlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny import window
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from domaintune.config.schema import OptimConfig, SchedulerConfig
from domaintune.data.batching import pack
from domaintune.kernels import fused
from domaintune.kernels.attention import check_isolation, document_attention, fits_varlen, isolate_documents
from domaintune.kernels.linear_cross_entropy import IGNORED, linear_cross_entropy, linear_cross_entropy_reference
from domaintune.tasks.causal_lm import CausalLM, model_inputs

pytestmark = pytest.mark.cuda
VOCABULARY = 512


def error(got: torch.Tensor, wanted: torch.Tensor) -> float:
    """Relative, over the whole tensor."""
    return float((got.double() - wanted.double()).norm() / wanted.double().norm())


@pytest.fixture(autouse=True)
def exact_fp32() -> Any:
    """The references' products in fp32, not in TF32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


def packed(device: str, rows: list[list[int]], block: int) -> Any:
    draw, smaller = torch.Generator().manual_seed(0), 1 if device == "cuda" else 4
    windows = [[window(torch.randint(VOCABULARY, (n // smaller,), generator=draw), n) for n in row] for row in rows]
    batch: Any = pack(windows, block // smaller, 0)
    return {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in batch.items()}


BLOCK = 512  # a quarter of it on a CPU
ROWS = [[100, 412], [28, 8, 300], [512], [64] * 8]  # with and without padding at their end, of one window and of many


@pytest.mark.parametrize("size", [64, 80, 128])
@pytest.mark.parametrize(("heads", "shared"), [(4, 1), (8, 4)])
def test_attention_is_that_of_masked_fp32(device: str, size: int, heads: int, shared: int) -> None:
    batch = packed(device, ROWS, BLOCK)
    cu_seqlens, length = batch["cu_seqlens"], batch["input_ids"].shape[1]
    draw = torch.Generator().manual_seed(0)
    shapes = [(len(ROWS), number, length, size) for number in (heads, heads // shared, heads // shared)]
    narrow = [torch.randn(shape, generator=draw).to(device, torch.bfloat16) for shape in shapes]
    slope = torch.randn(len(ROWS), length, heads, size, generator=draw).to(device)
    assert fits_varlen(narrow[0], 0.0) == (device == "cuda")
    found = []
    for dtype in (torch.bfloat16, torch.float32):
        inputs = [tensor.to(dtype).requires_grad_() for tensor in narrow]
        output, _ = document_attention(torch.nn.Module(), *inputs, None, cu_seqlens=cu_seqlens)
        found.append([output, *torch.autograd.grad(output, inputs, slope.to(dtype))])
    for got, wanted in zip(*found, strict=True):
        assert error(got, wanted) < 2e-2


def gpt2(size: int) -> Any:
    dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    shape = {"n_layer": 2, "n_embd": 4 * size, "n_head": 4, "n_positions": BLOCK, "vocab_size": VOCABULARY}
    return GPT2LMHeadModel(GPT2Config(**shape, **dropout, bos_token_id=0, eos_token_id=0))


def llama(size: int) -> Any:
    heads = {"num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": size}
    shape = {"hidden_size": 256, "intermediate_size": 512, "max_position_embeddings": BLOCK}
    return LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, **heads, **shape))


MODELS = [(gpt2, 64), (gpt2, 80), (gpt2, 128), (llama, 64), (llama, 128)]


@pytest.mark.parametrize(("made", "size"), MODELS)
def test_loss_and_gradients_of_a_model_are_those_of_masked_fp32(
    device: str, made: Callable[[int], Any], size: int
) -> None:
    torch.manual_seed(0)
    model = made(size).to(device)
    isolate_documents(model)
    task, batch = CausalLM(model, OptimConfig(lr=1e-3), SchedulerConfig(name="constant")), packed(device, ROWS, BLOCK)
    found = []
    for narrow in (True, False):
        with torch.autocast(device, torch.bfloat16, enabled=narrow):
            loss, tokens = task(batch)
        gradients = torch.autograd.grad(loss / tokens, list(model.parameters()))
        found.append([loss.detach(), torch.cat([gradient.flatten() for gradient in gradients])])
    for got, wanted in zip(*found, strict=True):
        assert error(got, wanted) < 2e-2


@pytest.mark.parametrize("narrow", [True, False])
@pytest.mark.parametrize(("made", "size"), MODELS)
def test_no_document_sees_another(device: str, made: Callable[[int], Any], size: int, narrow: bool) -> None:
    torch.manual_seed(0)
    model = made(size).to(device)
    isolate_documents(model)
    with torch.autocast(device, torch.bfloat16, enabled=narrow):
        check_isolation(model, model_inputs(packed(device, ROWS, BLOCK)))  # raises where one does


def liger() -> Any:
    """Liger's function under the signature of ours; None where it isn't installed or has no GPU."""
    try:
        function = importlib.import_module("liger_kernel.transformers.functional").liger_fused_linear_cross_entropy
    except ImportError:
        return None

    def loss(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        narrow = (hidden.bfloat16(), weight.bfloat16(), labels)
        return function(*narrow, reduction="sum", accum_dtype=torch.float32)

    return loss


@pytest.mark.parametrize(("vocabulary", "width"), [(50_257, 768), (128_256, 2048)])
def test_linear_cross_entropy_is_the_reference_in_fp32(
    device: str, vocabulary: int, width: int, figure: Callable[[str], None]
) -> None:
    on_gpu = device == "cuda"
    rows, vocabulary, width = (8_192, vocabulary, width) if on_gpu else (64, vocabulary // 64, width // 16)
    assert not on_gpu or fused.kernel(device) is not None
    draw = torch.Generator(device).manual_seed(0)
    hidden = torch.randn(rows, width, generator=draw, device=device).requires_grad_()
    weight = (torch.randn(vocabulary, width, generator=draw, device=device) * width**-0.5).requires_grad_()
    labels = torch.randint(vocabulary, (rows,), generator=draw, device=device)
    labels[::7] = IGNORED
    wanted = _loss_and_gradients(linear_cross_entropy_reference, hidden, weight, labels)
    with torch.autocast(device, torch.bfloat16):
        measured = {"ours": _measure(_ours, hidden, weight, labels)}
        measured["reference"] = _measure(linear_cross_entropy_reference, hidden, weight, labels)
        if on_gpu and (function := liger()) is not None:
            measured["liger"] = _measure(function, hidden, weight, labels)
    for name, (obtained, seconds, gigabytes) in measured.items():
        errors = [error(got, reference) for got, reference in zip(obtained, wanted, strict=True)]
        assert name != "ours" or max(errors) < 2e-2
        figure(
            f"loss and gradients, {rows:,} x {vocabulary:,}, {name}: {seconds * 1e3:.2f} ms, {gigabytes:.2f} GB, "
            f"relative error of loss {errors[0]:.1e}, hidden {errors[1]:.1e}, weight {errors[2]:.1e}"
        )
    for smoothing in (0.0, 0.1):
        with torch.no_grad():
            plain = linear_cross_entropy_reference(hidden, weight, labels, smoothing)
            assert error(linear_cross_entropy(hidden, weight, labels, smoothing), plain) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("smoothing", "biased"), [(0.0, True), (0.1, False), (0.1, True)])
@pytest.mark.parametrize(("rows", "vocabulary"), [(37, 101), (5_000, 101), (37, 5_003), (5_000, 9_000)])
def test_every_way_through_the_loss_is_the_reference(
    device: str, rows: int, vocabulary: int, smoothing: float, biased: bool, dtype: torch.dtype
) -> None:
    """Fewer and more rows than are taken at a time, columns of less and more than a block of the kernel."""
    rows, vocabulary = (rows, vocabulary) if device == "cuda" else (min(rows, 300), min(vocabulary, 501))
    draw = torch.Generator(device).manual_seed(0)
    hidden = torch.randn(rows, 64, generator=draw, device=device).requires_grad_()
    weight = (torch.randn(vocabulary, 64, generator=draw, device=device) / 8).requires_grad_()
    bias = torch.randn(vocabulary, generator=draw, device=device).requires_grad_() if biased else None
    labels = torch.randint(vocabulary, (rows,), generator=draw, device=device)
    labels[::5] = IGNORED
    inputs = [hidden, weight] + ([bias] if bias is not None else [])
    found = []
    for function, narrow in ((linear_cross_entropy, dtype != torch.float32), (linear_cross_entropy_reference, False)):
        with torch.autocast(device, dtype if narrow else torch.bfloat16, enabled=narrow):
            loss = function(hidden, weight, labels, smoothing, bias=bias)
        found.append([loss.detach(), *torch.autograd.grad(loss, inputs)])
    for got, wanted in zip(*found, strict=True):
        assert error(got, wanted) < (1e-5 if dtype == torch.float32 else 2e-2)


def _ours(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return linear_cross_entropy(hidden, weight, labels, drop=False)


def _loss_and_gradients(function: Any, *inputs: torch.Tensor) -> list[torch.Tensor]:
    loss = function(*inputs)
    return [loss.detach(), *torch.autograd.grad(loss, inputs[:2])]


def _measure(function: Any, *inputs: torch.Tensor) -> tuple[list[torch.Tensor], float, float]:
    """What it gives, the median of its seconds, and the memory that it took beside its inputs."""
    on_gpu, took = inputs[0].is_cuda, []
    before = torch.cuda.memory_allocated() if on_gpu else 0
    for _ in range(7 if on_gpu else 1):
        obtained: list[torch.Tensor] = []
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
            torch.cuda.synchronize()
        started = time.perf_counter()
        obtained = _loss_and_gradients(function, *inputs)
        if on_gpu:
            torch.cuda.synchronize()
        took.append(time.perf_counter() - started)
    peak = (torch.cuda.max_memory_allocated() - before) / 1e9 if on_gpu else 0.0
    return obtained, statistics.median(took), peak
