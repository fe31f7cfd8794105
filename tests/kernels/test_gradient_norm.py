import pytest
import torch

from domaintune.kernels.gradient_norm import ROW, sum_of_squares


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_that_of_all_elements_in_fp64(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    sizes = [(1,), (3, 5), (ROW,), (ROW + 1,), (700, 3000)]  # with few large elements among many small ones
    tensors = [(torch.randn(size) * torch.rand(size).pow(20)).to(dtype) for size in sizes]
    wanted = sum(tensor.double().square().sum() for tensor in tensors)
    assert float(sum_of_squares(tensors)) == pytest.approx(float(wanted), rel=1e-6 if dtype == torch.float32 else 1e-2)


def test_it_is_the_same_however_a_tensor_is_split() -> None:
    torch.manual_seed(0)
    tensor = torch.randn(3_000_000) * 1e-3
    parts = sum_of_squares(list(tensor.split(1_234_567)))
    assert float(sum_of_squares([tensor])) == pytest.approx(float(parts), rel=1e-6)


def test_what_is_not_finite_stays_so() -> None:
    assert sum_of_squares([torch.ones(3), torch.tensor([torch.nan])]).isnan()
    assert sum_of_squares([torch.ones(ROW), torch.tensor([torch.inf])]).isinf()
