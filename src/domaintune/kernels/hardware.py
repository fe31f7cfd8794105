"""What computes here: its name, the number format that it is fast in, and how fast it multiplies."""

import platform
import statistics
import time
from dataclasses import dataclass

import torch

# Dense products of bf16 with sums in fp32, in 1e12 operations a second, by the name that the driver gives; of NVIDIA's
# data sheets and architecture white papers. A device that isn't here has no MFU: a guess would be worse.
GPU_TFLOPS = {
    "NVIDIA A10": 125,
    "NVIDIA A40": 149.7,
    "NVIDIA A100-PCIE-40GB": 312,
    "NVIDIA A100 80GB PCIe": 312,
    "NVIDIA A100-SXM4-40GB": 312,
    "NVIDIA A100-SXM4-80GB": 312,
    "NVIDIA B200": 2250,
    "NVIDIA GeForce RTX 3090": 71,
    "NVIDIA GeForce RTX 4090": 165.2,
    "NVIDIA GeForce RTX 5090": 209.5,
    "NVIDIA H100 80GB HBM3": 989,
    "NVIDIA H100 NVL": 835,
    "NVIDIA H100 PCIe": 756,
    "NVIDIA H200": 989,
    "NVIDIA L4": 121,
    "NVIDIA L40S": 362,
    "NVIDIA RTX A6000": 154.8,
}
PRODUCT = (2048, 768, 3072)  # of a measured rate: GPT-2's widest layer over four rows of 512 tokens


@dataclass(frozen=True)
class Peak:
    """How fast a device multiplies matrices at most, and where the figure is from."""

    flops: float  # a second, of one device
    source: str


def device_type(accelerator: str) -> str:
    """The torch device type that Lightning will choose for an accelerator setting."""
    if accelerator in ("auto", "gpu"):
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    return accelerator


def machine(device: str) -> str:
    """What computes, in words: a figure means nothing without it."""
    if device == "cuda":
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    name = torch.cpu.get_capabilities().get("cpu_name") or platform.machine()
    return f"{name}, {torch.get_num_threads()} threads"


def resolve_precision(wanted: str, device: str) -> tuple[str, str]:
    """The precision to train in and why, in words.

    Args:
        wanted: Lightning's name of a precision, or `auto`.
        device: `cuda`, `cpu` or another device type of torch.

    Returns:
        for `auto`, bf16-mixed (fp32 weights, bf16 matrix products) where the device has instructions for it, else 32.
    """
    if wanted != "auto":
        return wanted, "as set"
    if device == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        name = torch.cuda.get_device_name()
        return ("bf16-mixed", f"{name} computes bf16") if native else ("32", f"{name} has no bf16")
    if device == "cpu":
        capabilities = torch.cpu.get_capabilities()
        found = [name for name in ("amx_bf16", "avx512_bf16") if capabilities.get(name)]
        if found:
            return "bf16-mixed", f"this processor has {' and '.join(found)}"
        return "32", "this processor has neither avx512_bf16 nor amx_bf16"
    return "32", f"bf16 on {device} is not known to be fast"


def prediction_device() -> str:
    """The GPU where there is one, which multiplies as in training; else the processor."""
    allow_tf32()
    return "cuda" if torch.cuda.is_available() else "cpu"


def allow_tf32() -> None:
    """Products of fp32 matrices in TF32 (10 bits of mantissa) where the GPU has it: Ampere and later."""
    if torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0):
        torch.set_float32_matmul_precision("high")


def peak(device: str, precision: str) -> Peak | None:
    """The most a device multiplies in a precision; None where it isn't known. On a CPU it is measured."""
    if device == "cpu":
        dtype = torch.bfloat16 if precision.startswith("bf16") else torch.float32
        rows, inner, columns = PRODUCT
        source = f"measured: {str(dtype).removeprefix('torch.')} products of {rows} x {inner} x {columns}"
        return Peak(product_rate(dtype), source)
    half = precision.startswith(("bf16", "16"))
    if device == "cuda" and half and (tflops := GPU_TFLOPS.get(torch.cuda.get_device_name())):
        return Peak(tflops * 1e12, f"data sheet of {torch.cuda.get_device_name()}: dense bf16")
    return None


def product_rate(dtype: torch.dtype, seconds: float = 0.25) -> float:
    """Floating-point operations a second of one matrix product on the processor: the median of as many as fit in."""
    rows, inner, columns = PRODUCT
    with torch.random.fork_rng(devices=[]):
        left, right = (torch.randn(shape).to(dtype) for shape in ((rows, inner), (inner, columns)))
    took: list[float] = []
    began = time.perf_counter()
    while time.perf_counter() - began < seconds or len(took) < 3:
        started = time.perf_counter()
        torch.mm(left, right)
        took.append(time.perf_counter() - started)
    return 2 * rows * inner * columns / statistics.median(took)
