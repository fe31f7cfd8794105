"""Which number format a device computes fast."""

import torch


def resolve_precision(wanted: str, accelerator: str) -> tuple[str, str]:
    """The precision to train in and why, in words.

    Args:
        wanted: Lightning's name of a precision, or `auto`.
        accelerator: `cuda`, `cpu` or another device type of torch.

    Returns:
        for `auto`, bf16-mixed (fp32 weights, bf16 matrix products) where the device has instructions for it, else 32.
    """
    if wanted != "auto":
        return wanted, "as set"
    if accelerator == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        name = torch.cuda.get_device_name()
        return ("bf16-mixed", f"{name} computes bf16") if native else ("32", f"{name} has no bf16")
    if accelerator == "cpu":
        capabilities = torch.cpu.get_capabilities()
        found = [name for name in ("amx_bf16", "avx512_bf16") if capabilities.get(name)]
        if found:
            return "bf16-mixed", f"this processor has {' and '.join(found)}"
        return "32", "this processor has neither avx512_bf16 nor amx_bf16"
    return "32", f"bf16 on {accelerator} is not known to be fast"
