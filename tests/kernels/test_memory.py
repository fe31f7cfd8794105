import platform
import subprocess
import sys

import pytest
import torch

from domaintune.kernels.memory import peak_memory_gb

FAULTS = """
import resource, torch
from domaintune.kernels.memory import keep_freed_memory
def step():
    held = [torch.ones(size << 20) for size in (1, 16, 4, 12, 3, 16)]
{first}
for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(first: str) -> int:
    """Of ten steps that make tensors of 4 to 64 MB and free them at their end."""
    command = [sys.executable, "-c", FAULTS.format(first=first)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator is what is told")
def test_what_is_freed_is_kept_and_used_again() -> None:
    assert page_faults("keep_freed_memory()") * 10 < page_faults("")


def test_the_peak_of_a_process_grows_with_what_it_holds() -> None:
    before = peak_memory_gb(torch.device("cpu"))
    held = torch.ones(round((before + 0.1) * 1e9 / 4))
    assert peak_memory_gb(torch.device("cpu")) > held.nbytes / 1e9
