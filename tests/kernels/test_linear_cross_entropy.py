import sys
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from domaintune.kernels import fused
from domaintune.kernels import linear_cross_entropy as module
from domaintune.kernels.linear_cross_entropy import IGNORED, linear_cross_entropy, linear_cross_entropy_reference

SHAPES = [(1, 8, 11), (7, 16, 101), (33, 24, 257), (64, 32, 1000), (5, 3, 2)]  # rows, width, vocabulary


def made(rows: int, width: int, vocabulary: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    """hidden, weight and labels, a third of them ignored (never the first)."""
    draw = torch.Generator().manual_seed(rows)
    hidden = torch.randn(rows, width, generator=draw, dtype=dtype)
    weight = torch.randn(vocabulary, width, generator=draw, dtype=dtype)
    labels = torch.randint(vocabulary, (rows,), generator=draw)
    labels[torch.arange(rows) % 3 == 1] = IGNORED
    return hidden.requires_grad_(), weight.requires_grad_(), labels


def loss_and_gradients(function: Any, hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> list[Any]:
    loss = function(hidden, weight, labels)
    return [loss.detach(), *torch.autograd.grad(loss, (hidden, weight))]


def error(got: torch.Tensor, wanted: torch.Tensor) -> float:
    """Relative, over the whole tensor."""
    return float((got.double() - wanted.double()).norm() / wanted.double().norm())


@pytest.mark.parametrize("drop", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_loss_and_gradients_equal_the_reference(shape: tuple[int, int, int], drop: bool) -> None:
    inputs = made(*shape)
    wanted = loss_and_gradients(linear_cross_entropy_reference, *inputs)
    obtained = loss_and_gradients(partial(linear_cross_entropy, drop=drop), *inputs)
    for got, reference in zip(obtained, wanted, strict=True):
        assert error(got, reference) < 1e-5
        assert got.dtype == torch.float32


@pytest.mark.parametrize("shape", SHAPES)
def test_under_bf16_autocast_they_equal_the_reference_in_fp32_but_for_rounding(shape: tuple[int, int, int]) -> None:
    inputs = made(*shape)
    wanted = loss_and_gradients(linear_cross_entropy_reference, *inputs)
    with torch.autocast("cpu", torch.bfloat16):
        obtained = loss_and_gradients(linear_cross_entropy, *inputs)
    for got, reference in zip(obtained, wanted, strict=True):
        assert error(got, reference) < 2e-2
        assert got.dtype == torch.float32


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_bias_counts_and_has_its_gradient(shape: tuple[int, int, int], autocast: bool) -> None:
    hidden, weight, labels = made(*shape)
    bias = torch.randn(len(weight), generator=torch.Generator().manual_seed(1)).requires_grad_()
    found = []
    for function in (linear_cross_entropy_reference, linear_cross_entropy):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast and function is linear_cross_entropy):
            loss = function(hidden, weight, labels, 0.1, bias=bias)
        found.append([loss.detach(), *torch.autograd.grad(loss, (hidden, weight, bias))])
    for wanted, got in zip(*found, strict=True):
        assert error(got, wanted) < (2e-2 if autocast else 1e-5)
        assert got.dtype == torch.float32


def test_autocast_computes_the_products_in_its_own_format() -> None:
    inputs = made(64, 32, 1000)
    with torch.autocast("cpu", torch.bfloat16):
        narrow = linear_cross_entropy(*inputs)
    rounded = linear_cross_entropy(inputs[0].bfloat16(), inputs[1].bfloat16(), inputs[2])
    assert narrow == rounded != linear_cross_entropy(*inputs)


@pytest.mark.parametrize("columns", [1, 3, 22, 999, 1000])
@pytest.mark.parametrize("near_rows", [1, 5, 1000])
def test_the_size_of_a_block_changes_nothing(columns: int, near_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = made(64, 32, 1000, torch.float64)
    wanted = loss_and_gradients(linear_cross_entropy, *inputs)
    monkeypatch.setattr(module, "MIN_COLUMNS", columns)
    monkeypatch.setattr(module, "BLOCK_ELEMENTS", 1)
    monkeypatch.setattr(module, "NEAR_ELEMENTS", near_rows * columns)
    for got, reference in zip(loss_and_gradients(linear_cross_entropy, *inputs), wanted, strict=True):
        assert error(got, reference) < 1e-12


class Largest(TorchDispatchMode):
    """Notes the elements of the largest tensor that any operation gives."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        for tensor in output if isinstance(output, tuple | list) else [output]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return output


@pytest.mark.parametrize("gradients", [True, False])
def test_no_tensor_of_rows_times_vocabulary_is_made(gradients: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, weight, labels = made(300, 4, 1000)
    monkeypatch.setattr(module, "BLOCK_ELEMENTS", 300 * 20)
    monkeypatch.setattr(module, "MIN_COLUMNS", 1)
    with Largest() as largest, torch.set_grad_enabled(gradients):
        loss = linear_cross_entropy(hidden, weight, labels)
        if gradients:
            loss.backward()
    assert largest.elements == 300 * 20
    with Largest() as of_reference:
        linear_cross_entropy_reference(hidden, weight, labels)
    assert of_reference.elements == 300 * 1000


def test_without_labels_the_loss_and_its_gradients_are_zero() -> None:
    hidden, weight, labels = made(9, 8, 50)
    loss, *gradients = loss_and_gradients(linear_cross_entropy, hidden, weight, torch.full_like(labels, IGNORED))
    assert loss == 0
    assert [gradient.shape for gradient in gradients] == [hidden.shape, weight.shape]
    assert not any(gradient.any() for gradient in gradients)


def test_rows_without_a_label_get_no_gradient() -> None:
    hidden, weight, labels = made(9, 8, 50)
    _, gradient, _ = loss_and_gradients(linear_cross_entropy, hidden, weight, labels)
    assert torch.equal(gradient.abs().sum(1) == 0, labels == IGNORED)


def test_one_row_by_hand() -> None:
    hidden, weight = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 5.0], [1.0, 5.0]])
    loss = linear_cross_entropy(hidden, weight, torch.tensor([1]))  # logits 0 and 1
    assert loss == pytest.approx(torch.log1p(torch.tensor(-1.0).exp()).item())


def test_a_tied_embedding_gets_the_gradients_of_both_its_places() -> None:
    torch.manual_seed(0)
    weight, ids = nn.Embedding(50, 8).weight, torch.randint(50, (20,))
    losses = [
        function(nn.functional.embedding(ids[:-1], weight).tanh(), weight, ids[1:])
        for function in (linear_cross_entropy, linear_cross_entropy_reference)
    ]
    (got,), (wanted,) = (torch.autograd.grad(loss, weight) for loss in losses)
    assert error(got, wanted) < 1e-5


def test_the_gradient_scales_with_what_follows_the_loss() -> None:
    hidden, weight, labels = made(33, 24, 257)
    plain = torch.autograd.grad(linear_cross_entropy(hidden, weight, labels), (hidden, weight))
    tripled = torch.autograd.grad(linear_cross_entropy(hidden, weight, labels) * 3, (hidden, weight))
    for one, three in zip(plain, tripled, strict=True):
        torch.testing.assert_close(one * 3, three)


def test_without_gradients_the_loss_is_the_same() -> None:
    hidden, weight, labels = made(33, 24, 257)
    with_gradients = linear_cross_entropy(hidden, weight, labels)
    with torch.no_grad():
        assert linear_cross_entropy(hidden, weight, labels) == with_gradients
    assert linear_cross_entropy(hidden.detach(), weight.detach(), labels) == with_gradients


def test_a_frozen_head_still_hands_the_gradient_on() -> None:
    hidden, weight, labels = made(33, 24, 257)
    (wanted,) = torch.autograd.grad(linear_cross_entropy(hidden, weight, labels), hidden)
    linear_cross_entropy(hidden, weight.detach(), labels).backward()
    assert hidden.grad is not None
    assert torch.equal(hidden.grad, wanted)


def test_the_gradients_are_those_of_finite_differences() -> None:
    hidden, weight, labels = made(7, 5, 13, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda h, w: linear_cross_entropy(h, w, labels), (hidden, weight))


def test_inputs_are_left_as_they_were() -> None:
    hidden, weight, labels = made(33, 24, 257)
    before = [tensor.detach().clone() for tensor in (hidden, weight, labels)]
    linear_cross_entropy(hidden, weight, labels).backward()
    for tensor, old in zip((hidden, weight, labels), before, strict=True):
        assert torch.equal(tensor, old)


@pytest.mark.parametrize("drop", [True, False])
@pytest.mark.parametrize("smoothing", [0.1, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_label_smoothing_equals_the_reference(shape: tuple[int, int, int], smoothing: float, drop: bool) -> None:
    inputs = made(*shape)
    results = [
        loss_and_gradients(partial(function, label_smoothing=smoothing), *inputs)
        for function in (partial(linear_cross_entropy, drop=drop), linear_cross_entropy_reference)
    ]
    for got, wanted in zip(*results, strict=True):
        assert error(got, wanted) < 1e-5


def test_a_loss_scale_of_fp16_overflows_nowhere() -> None:
    inputs = made(33, 24, 257)
    wanted = loss_and_gradients(linear_cross_entropy_reference, *inputs)[1:]
    with torch.autocast("cpu", torch.float16):
        loss = linear_cross_entropy(*inputs)
    scaled = torch.autograd.grad(loss * 2.0**16, inputs[:2])
    for got, reference in zip(scaled, wanted, strict=True):
        assert error(got / 2.0**16, reference) < 2e-2


def test_large_logits_overflow_nowhere() -> None:
    hidden, weight, labels = made(33, 24, 257)
    inputs = ((hidden.detach() * 1e3).requires_grad_(), weight, labels)
    wanted = loss_and_gradients(linear_cross_entropy_reference, *inputs)
    for got, reference in zip(loss_and_gradients(linear_cross_entropy, *inputs), wanted, strict=True):
        assert got.isfinite().all()
        assert error(got, reference) < 1e-5


def plain_kernel(
    logits: torch.Tensor, vocabulary: int, labels: torch.Tensor, ignored: int, label_smoothing: float, gradients: bool
) -> torch.Tensor:
    """What the kernel for GPUs computes, by torch."""
    with torch.enable_grad():
        exact = logits[:, :vocabulary].detach().float().clone().requires_grad_()
        losses = nn.functional.cross_entropy(
            exact, labels, ignore_index=ignored, reduction="none", label_smoothing=label_smoothing
        )
        if gradients:
            slopes = torch.autograd.grad(losses.sum(), exact)[0]
    if gradients:
        logits.zero_()[:, :vocabulary] = slopes
    return losses.detach()


@pytest.fixture(params=[3, 16, 1000])
def as_on_a_gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way of GPUs on a CPU: so many rows at a time, and torch in the place of the kernel."""
    monkeypatch.setattr(module, "FUSED_ON", "cpu")
    monkeypatch.setattr(fused, "kernel", lambda _device: plain_kernel)
    monkeypatch.setattr(fused, "ROWS", request.param)


@pytest.mark.usefixtures("as_on_a_gpu")
class TestAsOnAGpu:
    @pytest.mark.parametrize("drop", [True, False])
    @pytest.mark.parametrize("smoothing", [0.0, 0.1])
    @pytest.mark.parametrize("shape", SHAPES)
    def test_loss_and_gradients_equal_the_reference(
        self, shape: tuple[int, int, int], smoothing: float, drop: bool
    ) -> None:
        inputs = made(*shape)
        wanted = loss_and_gradients(partial(linear_cross_entropy_reference, label_smoothing=smoothing), *inputs)
        obtained = loss_and_gradients(partial(linear_cross_entropy, label_smoothing=smoothing, drop=drop), *inputs)
        for got, reference in zip(obtained, wanted, strict=True):
            assert error(got, reference) < 1e-5
            assert got.dtype == torch.float32

    @pytest.mark.parametrize("autocast", [False, True])
    @pytest.mark.parametrize("shape", SHAPES)
    def test_a_bias_counts_and_has_its_gradient(self, shape: tuple[int, int, int], autocast: bool) -> None:
        test_a_bias_counts_and_has_its_gradient(shape, autocast)

    def test_without_labels_the_loss_and_its_gradients_are_zero(self) -> None:
        test_without_labels_the_loss_and_its_gradients_are_zero()

    def test_the_gradient_scales_with_what_follows_the_loss(self) -> None:
        test_the_gradient_scales_with_what_follows_the_loss()

    def test_without_gradients_the_loss_is_the_same_and_none_are_made(self, monkeypatch: pytest.MonkeyPatch) -> None:
        hidden, weight, labels = made(33, 24, 257)
        wanted = linear_cross_entropy(hidden, weight, labels)
        added: list[Any] = []
        monkeypatch.setattr(fused, "_add_product", lambda *given: added.append(given))
        with torch.no_grad():
            assert linear_cross_entropy(hidden, weight, labels) == wanted
        assert linear_cross_entropy(hidden.detach(), weight.detach(), labels) == wanted
        assert not added

    def test_a_frozen_head_still_hands_the_gradient_on(self) -> None:
        test_a_frozen_head_still_hands_the_gradient_on()

    def test_inputs_are_left_as_they_were(self) -> None:
        test_inputs_are_left_as_they_were()

    def test_a_loss_scale_of_fp16_overflows_nowhere(self) -> None:
        test_a_loss_scale_of_fp16_overflows_nowhere()

    def test_the_losses_of_each_row_add_up_to_the_loss(self) -> None:
        test_the_losses_of_each_row_add_up_to_the_loss(torch.float32)

    def test_a_second_backward_pass_is_refused(self) -> None:
        """The gradients were scaled in their place: again they would be wrong."""
        hidden, weight, labels = made(33, 24, 257)
        loss = linear_cross_entropy(hidden, weight, labels)
        loss.backward(retain_graph=True)
        with pytest.raises(RuntimeError, match="can be called once"):
            loss.backward()


def no_compiler(*_: Any) -> torch.Tensor:
    raise RuntimeError("Failed to find C compiler. Please specify via CC environment variable.")


@pytest.mark.parametrize(
    ("found", "why"), [(None, "import of"), (SimpleNamespace(cross_entropy_in_place=no_compiler), "C compiler")]
)
def test_a_gpu_without_the_kernel_does_as_a_cpu(found: Any, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "domaintune.kernels.softmax_kernel", found)  # None: its import fails
    monkeypatch.setattr(module, "FUSED_ON", "cpu")
    fused.kernel.cache_clear()
    inputs = made(33, 24, 257)
    wanted = loss_and_gradients(linear_cross_entropy_reference, *inputs)
    with pytest.warns(UserWarning, match=f"without its kernel for GPUs, more slowly: .*{why}"):
        obtained = loss_and_gradients(linear_cross_entropy, *inputs)
    for got, reference in zip(obtained, wanted, strict=True):
        assert error(got, reference) < 1e-5
    fused.kernel.cache_clear()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_losses_of_each_row_add_up_to_the_loss(dtype: torch.dtype) -> None:
    hidden, weight, labels = made(37, 16, 50, dtype)
    labels[::5] = IGNORED
    of_each = module.linear_cross_entropy_of_each(hidden, weight, labels)
    wanted = nn.functional.cross_entropy(hidden @ weight.T, labels, ignore_index=IGNORED, reduction="none")
    assert torch.allclose(of_each, wanted.to(of_each), atol=1e-5)
    assert (of_each[::5] == 0).all()
    assert not of_each.requires_grad
    assert of_each.sum() == pytest.approx(float(linear_cross_entropy(hidden, weight, labels)), rel=1e-6)
