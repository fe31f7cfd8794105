import pytest
import torch

from domaintune.hardware import resolve_precision


@pytest.mark.parametrize("wanted", ["32", "bf16-mixed", "bf16-true", "16-mixed"])
def test_a_precision_that_is_named_is_taken(wanted: str) -> None:
    assert resolve_precision(wanted, "cpu") == (wanted, "as set")


@pytest.mark.parametrize(
    ("capabilities", "precision", "words"),
    [
        ({"avx512_bf16": True, "amx_bf16": True}, "bf16-mixed", "this processor has amx_bf16 and avx512_bf16"),
        ({"avx512_bf16": True, "amx_bf16": False}, "bf16-mixed", "this processor has avx512_bf16"),
        ({"amx_bf16": True}, "bf16-mixed", "this processor has amx_bf16"),
        ({"avx512_bf16": False, "avx512_f": True}, "32", "neither avx512_bf16 nor amx_bf16"),
        ({}, "32", "neither avx512_bf16 nor amx_bf16"),
    ],
)
def test_auto_on_a_processor_follows_its_instructions(
    capabilities: dict[str, bool], precision: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    name, why = resolve_precision("auto", "cpu")
    assert name == precision
    assert words in why


@pytest.mark.parametrize(("native", "precision"), [(True, "bf16-mixed"), (False, "32")])
def test_auto_on_a_gpu_asks_for_native_bf16(native: bool, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native or including_emulation)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A card")
    name, why = resolve_precision("auto", "cuda")
    assert name == precision
    assert why.startswith("A card")


def test_auto_on_a_device_that_is_not_known_stays_in_fp32() -> None:
    assert resolve_precision("auto", "mps")[0] == "32"
