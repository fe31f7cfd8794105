"""What the tests share: no network, one thread, a tokenizer, and a tiny checkpoint on disk."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub reads it: no test asks the Hub
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = "1"  # for shapes this small, threads cost more than they give

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hydra
import pytest
import tiny
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict
from tensorboard.summary.writer import event_file_writer
from transformers import AutoTokenizer

from domaintune.config.overrides import register_resolvers
from domaintune.data.embedded import embedded_corpus
from domaintune.models.locating import ASSETS
from domaintune.sweeps.sweepers import register_plugins

register_plugins()
register_resolvers()

CONF = Path(__file__).parent.parent / "conf"

# The names of event files of one second end in a count, and TensorBoard reads them in the order of text: 10 before 9.
# Tests write many files a second; these counts have as many digits as each other.
event_file_writer._global_uid = event_file_writer.AtomicCounter(1_000_000)


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(ASSETS / "gpt2_tiny")


@pytest.fixture(autouse=True)
def no_chat_template(request: pytest.FixtureRequest) -> Iterator[None]:
    """Data of chats gives a tokenizer a template, and all tests share one tokenizer."""
    shared = request.getfixturevalue("tokenizer") if "tokenizer" in request.fixturenames else None
    yield
    if hasattr(shared, "chat_template"):
        shared.chat_template = None


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    """A folder for `model.checkpoint`: random GPT-2 weights and a tokenizer. Copy it before changing it."""
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny_gpt2"
    tiny.gpt2(vocab_size=len(tokenizer), n_positions=64).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def corpus_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder in which the embedded corpus already lies."""
    cache = tmp_path_factory.mktemp("cache")
    embedded_corpus(str(cache))
    return cache


@pytest.fixture
def compose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., DictConfig]]:
    """What Hydra would hand to train.py's main for these overrides."""
    monkeypatch.setenv("DOMAINTUNE_CACHE", str(tmp_path / "cache"))

    def composed(*overrides: str) -> DictConfig:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            config = hydra.compose("train", overrides=list(overrides), return_hydra_config=True)
        with open_dict(config):
            config.hydra.runtime.output_dir = str(tmp_path / "run")
        HydraConfig.instance().set_config(config)
        with open_dict(config):
            del config["hydra"]
        OmegaConf.set_readonly(config, False)
        return config

    yield composed
    HydraConfig.instance().cfg = None


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", choices=("cuda", "cpu"), default="cuda", help="what tests/cuda runs on")
