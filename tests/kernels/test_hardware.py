import pytest
import torch

from domaintune.kernels import hardware
from domaintune.kernels.hardware import allow_tf32, peak, product_rate, resolve_precision


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


def test_the_peak_of_a_processor_is_measured_in_the_format_that_is_trained_in(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(hardware, "product_rate", lambda dtype: asked.append(dtype) or 5e9)
    for precision in ("bf16-mixed", "bf16-true", "32"):
        assert peak("cpu", precision).flops == 5e9
    assert asked == [torch.bfloat16, torch.bfloat16, torch.float32]
    assert peak("cpu", "bf16-mixed").source == "measured: bfloat16 products of 2048 x 768 x 3072"


@pytest.mark.parametrize(
    ("name", "precision", "flops"),
    [
        ("NVIDIA H100 80GB HBM3", "bf16-mixed", 989e12),
        ("NVIDIA L4", "16-mixed", 121e12),
        ("NVIDIA H100 80GB HBM3", "32", None),
        ("A card of next year", "bf16-mixed", None),
    ],
)
def test_the_peak_of_a_gpu_is_in_the_table_or_not_known(
    name: str, precision: str, flops: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: name)
    found = peak("cuda", precision)
    assert (found and found.flops) == flops
    assert found is None or name in found.source


def test_a_device_without_figures_has_no_peak() -> None:
    assert peak("mps", "32") is None


def test_a_measured_rate_is_that_of_a_processor_and_leaves_the_random_state_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hardware, "PRODUCT", (256, 128, 128))
    before = torch.get_rng_state()
    assert 1e8 < product_rate(torch.float32, seconds=0.01) < 1e14
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("capability", "set_to"), [((8, 0), ["high"]), ((7, 5), [])])
def test_tf32_from_ampere_on(capability: tuple[int, int], set_to: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch, "set_float32_matmul_precision", asked.append)
    allow_tf32()
    assert asked == set_to
