"""Memory of a measurement. The program's own function would bring Lightning into the classic ways' memory."""

import resource
import sys


def peak_memory_gb(device: str = "cpu") -> float:
    """The most held on a GPU; else by this process, or by one of those it waited for where that was more."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated() / 1e9
    most = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return most * (1 if sys.platform == "darwin" else 1024) / 1e9
