"""Dropout on a CPU: unbiased, independent, a function of the seed, and the same compiled."""

import pytest
import tiny
import torch
from torch import nn

from domaintune.kernels.dropout import Dropout, replace_dropout


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9, 1 / 3])
def test_elements_are_dropped_with_the_probability_and_the_rest_is_scaled(p: float) -> None:
    torch.manual_seed(0)
    dropped = Dropout(p)(torch.ones(1 << 20))
    assert dropped.unique().tolist() == [0.0, pytest.approx(1 / (1 - p), rel=1e-4)]
    assert (dropped == 0).float().mean().item() == pytest.approx(p, abs=0.002)
    assert dropped.mean().item() == pytest.approx(1, abs=0.02)


def test_all_four_numbers_of_a_draw_drop_alike_and_on_their_own() -> None:
    torch.manual_seed(0)
    kept = (Dropout(0.25)(torch.ones(1 << 20)) != 0).view(-1, 4).double()
    assert kept.mean(0).tolist() == pytest.approx([0.75] * 4, abs=0.003)
    assert (torch.corrcoef(kept.T) - torch.eye(4)).abs().max() < 0.01


@pytest.mark.parametrize("shape", [(1,), (5,), (3, 7), (0, 4)])
def test_any_shape_and_type_keeps_its_own(shape: tuple[int, ...]) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        dropped = Dropout(0.5)(torch.ones(shape, dtype=dtype))
        assert (dropped.shape, dropped.dtype) == (shape, dtype)


def test_the_gradient_flows_where_the_value_did() -> None:
    inputs = torch.randn(64, 64, requires_grad=True)
    dropped = Dropout(0.5)(inputs)
    dropped.sum().backward()
    assert inputs.grad is not None
    assert torch.equal(inputs.grad, torch.where(dropped == 0, 0.0, 2.0))


def test_the_seed_decides() -> None:
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(Dropout(0.5)(torch.ones(1000)))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize("module", [Dropout(0.0), Dropout(0.5).eval(), Dropout(1e-9)])
def test_without_anything_to_drop_the_input_comes_back(module: nn.Module) -> None:
    inputs = torch.randn(8)
    assert torch.equal(module(inputs), inputs)


def test_everything_dropped_is_zero() -> None:
    assert not Dropout(1.0)(torch.ones(8)).any()


def test_it_takes_the_place_of_torchs_own_everywhere_in_a_model() -> None:
    model = tiny.gpt2(resid_pdrop=0.3, embd_pdrop=0.2)
    replace_dropout(model)
    found = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    assert len(found) > 4
    assert all(type(module) is Dropout for module in found)
    assert {module.p for module in found} == {0.0, 0.2, 0.3}


@pytest.mark.slow
def test_compiled_it_drops_the_same_and_hands_back_the_gradient_of_what_it_dropped() -> None:
    module = Dropout(0.3)
    inputs = torch.randn(1000, requires_grad=True)
    torch.manual_seed(3)
    expected = module(inputs * 2) + 1
    torch.manual_seed(3)
    compiled = torch.compile(lambda x: module(x * 2) + 1)(inputs)
    assert torch.equal(compiled, expected)
    (by_hand,) = torch.autograd.grad(expected.sum(), inputs)
    (gradient,) = torch.autograd.grad(compiled.sum(), inputs)
    assert torch.equal(gradient, by_hand)
