"""The memory of this process: how much it took at most, and what becomes of it once it is freed."""

import ctypes
import platform
import resource
import sys

import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of <malloc.h>
LARGEST_KEPT = 1 << 30  # bytes: larger than any tensor that a step makes anew


def keep_freed_memory() -> None:
    """Tells glibc to keep what is freed instead of handing it back to the system; elsewhere nothing happens.

    Else each large tensor of a CPU step is fetched from the system and filled with zeros page by page, every time: a
    tenth of a step of GPT-2 124M. Made for steps of one shape; tensors of ever new sizes would leave holes.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def peak_memory_gb(device: torch.device) -> float:
    """The most memory held so far, in GB: of the GPU where one is used, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
