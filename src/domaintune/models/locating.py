"""A checkpoint's name -> a local folder with its files. Imports neither torch nor transformers.

`embedded:NAME` is in this package, `package:NAME` in another Python package; anything else is looked for as a local
folder, in the Hub's cache and on the Hub, in this order. Another model is never put in the place of one that isn't
found.
"""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domaintune.config.schema import Config
from domaintune.errors import UsageError
from domaintune.models.packages import PACKAGE, folder_of

EMBEDDED = "embedded:"
ASSETS = Path(__file__).parent.parent / "assets"
START_MARK = "<|startoftext|>"  # which GPT-2's tools put before a document; no tokenizer's own
HUB_TIMEOUT = 5  # seconds to wait for the Hub's first answer

# What may be fetched: configuration, vocabularies and safetensors. Never pickles, never code, no other frameworks.
WANTED = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
UNWANTED = ["*/*", "consolidated*"]
TOKENIZERS = ("tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model")

# What else a tokenizer is made of.
TOKENIZER_FILES = (
    *TOKENIZERS,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "chat_template.jinja",
)

# Families whose positions are distances: a number of them in a config is no limit.
RELATIVE_POSITIONS = "longt5 mt5 t5 umt5".split()
# Families that number positions from the padding token's id + 1 on: so many of their embeddings are never used.
SHIFTED_POSITIONS = (
    "camembert data2vec-text longformer luke mpnet roberta roberta-prelayernorm xlm-roberta xlm-roberta-xl xmod"
).split()


@dataclass(frozen=True)
class Checkpoint:
    """Where a checkpoint lies. `name` is what the person typed; `found` says how it was found."""

    name: str
    folder: Path
    found: str

    @property
    def config(self) -> dict[str, Any]:
        """config.json, as it stands there."""
        try:
            content = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
        except ValueError as error:
            raise UsageError(f"model.checkpoint={self.name}: {self.folder}/config.json is damaged ({error})") from error
        assert isinstance(content, dict)
        return content

    @property
    def max_positions(self) -> int | None:
        """The longest input that the model was built for; None where it names no limit."""
        config = self.config
        if config.get("model_type") in RELATIVE_POSITIONS:
            return None
        limits = (config.get(key) for key in ("max_position_embeddings", "n_positions", "n_ctx"))
        unused = (config.get("pad_token_id") or 0) + 1 if config.get("model_type") in SHIFTED_POSITIONS else 0
        return next((int(limit) - unused for limit in limits if limit), None)

    @property
    def embeddings(self) -> int | None:
        """How many tokens the model has embeddings for; None where config.json doesn't say it."""
        size = self.config.get("vocab_size")
        return size if isinstance(size, int) else None

    @property
    def tokens(self) -> int | None:
        """How many tokens tokenizer.json has; None where there is none, or it isn't readable as one."""
        content = self._read("tokenizer.json")
        vocabulary = content.get("model", {}).get("vocab", ())
        added = [token["id"] for token in content.get("added_tokens", ())]
        numbers = [*vocabulary.values(), *added] if isinstance(vocabulary, dict) else [len(vocabulary) - 1, *added]
        return max(numbers, default=-1) + 1 or None

    def special_token(self, role: str) -> str | None:
        """The name of the token with a role in the tokenizer, as `eos_token`; None where it has none."""
        for file in ("tokenizer_config.json", "special_tokens_map.json"):
            token = self._read(file).get(role)
            if token is not None:
                return str(token["content"] if isinstance(token, dict) else token)
        # The class of the tokenizer knows it, as GPT-2's does; so does the model.
        number, content = self.config.get(f"{role}_id"), self._read("tokenizer.json")
        vocabulary = content.get("model", {}).get("vocab") or self._read("vocab.json")
        names = {token["id"]: str(token["content"]) for token in content.get("added_tokens", ())}
        if isinstance(vocabulary, dict):
            names = {number: name for name, number in vocabulary.items()} | names
        return names.get(number)

    def place(self) -> str:
        """What other programs find it by: the folder, or the id on the Hub."""
        return self.name if "Hub" in self.found else str(self.folder.resolve())

    def _read(self, file: str) -> dict[str, Any]:
        try:
            content = json.loads((self.folder / file).read_text(encoding="utf-8"))
        except (OSError, ValueError):  # what opens the tokenizer says what is wrong with it
            return {}
        return content if isinstance(content, dict) else {}

    def weights_hash(self) -> str | None:
        """SHA-256 over the safetensors files in the order of their names; None where there are none."""
        digest = hashlib.sha256()
        files = sorted(self.folder.glob("*.safetensors"))
        for file in files:
            with file.open("rb") as content:
                digest.update(hashlib.file_digest(content, "sha256").digest())
        return digest.hexdigest() if files else None

    def settings_hash(self) -> str:
        """SHA-256 over config.json and the tokenizer's files, with their names."""
        return self._hash_of("config.json", *TOKENIZER_FILES)

    def generation_hash(self) -> str:
        """SHA-256 over generation_config.json, which says how the model writes."""
        return self._hash_of("generation_config.json")

    def _hash_of(self, *names: str) -> str:
        digest = hashlib.sha256()
        for name in names:
            if (file := self.folder / name).is_file():
                digest.update(f"{name}:{file.stat().st_size}:".encode() + file.read_bytes())
        return digest.hexdigest()


def marks_of(config: Config) -> tuple[str, ...]:
    """What `data.marks` makes of the checkpoint's tokenizer: the mark that ends a document, those that may begin one.

    Raises:
        UsageError: the tokenizer has no end-of-text token.
    """
    if config.data.marks is None:
        return ()
    checkpoint = locate(config.model.checkpoint, needs_weights=False, cache=config.paths.cache)
    end = checkpoint.special_token("eos_token") or checkpoint.special_token("sep_token")
    begin = checkpoint.special_token("bos_token") or checkpoint.special_token("cls_token")
    if end is None:
        raise UsageError(f"data.marks={config.data.marks}: the tokenizer of {checkpoint.name} has no end-of-text token")
    return tuple(dict.fromkeys(mark for mark in (end, begin, START_MARK) if mark is not None))


def locate(name: str, needs_weights: bool = True, cache: str | None = None) -> Checkpoint:
    """Finds a checkpoint, fetching it from the Hub where it is nowhere on this machine.

    Args:
        name: `embedded:NAME`, `package:NAME`, a local folder or a Hub id such as `openai-community/gpt2`.
        needs_weights: False where only shape and tokenizer are wanted.
        cache: `paths.cache`, where a package's weights are kept that had to be converted.

    Raises:
        UsageError: not found, or found without config.json or safetensors weights.
    """
    if name.startswith(EMBEDDED):
        return _checked(Checkpoint(name, _embedded(name), "embedded"), needs_weights)
    if name.startswith(PACKAGE):
        return _checked(Checkpoint(name, folder_of(name, cache), "a Python package"), needs_weights)
    if Path(name).expanduser().is_dir():
        return _checked(Checkpoint(name, Path(name).expanduser(), "local folder"), needs_weights)
    if name.startswith(("/", "./", "../", "~")) or name.count("/") > 1:
        raise UsageError(f"model.checkpoint={name}: no such folder (from {Path.cwd()})")
    return _from_hub(name, needs_weights)


def _embedded(name: str) -> Path:
    folder = ASSETS / name.removeprefix(EMBEDDED)
    if not folder.is_dir():
        known = ", ".join(EMBEDDED + place.name for place in sorted(ASSETS.iterdir()) if place.is_dir())
        raise UsageError(f"model.checkpoint={name}: there is no such embedded checkpoint; there is {known}")
    return folder


def _checked(checkpoint: Checkpoint, needs_weights: bool) -> Checkpoint:
    if not (checkpoint.folder / "config.json").is_file():
        raise UsageError(f"model.checkpoint={checkpoint.name}: {checkpoint.folder} holds no config.json")
    if not any((checkpoint.folder / file).is_file() for file in TOKENIZERS):
        raise UsageError(f"model.checkpoint={checkpoint.name}: {checkpoint.folder} holds no tokenizer")
    if needs_weights and (missing := _missing_shards(checkpoint.folder)):
        raise UsageError(f"model.checkpoint={checkpoint.name}: {checkpoint.folder} lacks {', '.join(missing)}")
    if needs_weights and not any(checkpoint.folder.glob("*.safetensors")):
        raise UsageError(
            f"model.checkpoint={checkpoint.name}: {checkpoint.folder} holds no .safetensors weights; pickled weights "
            f"(.bin, .pt) can run code and are not loaded. Save it anew with save_pretrained(), or model.init=random"
        )
    return checkpoint


def _missing_shards(folder: Path) -> list[str]:
    """Files that a checkpoint in several files names and does not have."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return []
    named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    return sorted(file for file in named if not (folder / file).is_file())


def _from_hub(name: str, needs_weights: bool) -> Checkpoint:
    # Reading the environment once at import, huggingface_hub also gives the cache's place.
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    wanted = WANTED if needs_weights else [pattern for pattern in WANTED if pattern != "*.safetensors"]

    def snapshot(**where: Any) -> Path:
        return Path(snapshot_download(name, allow_patterns=wanted, ignore_patterns=UNWANTED, **where))

    tried = [f"no folder {name} here", f"not in the Hub's cache ({constants.HF_HUB_CACHE})"]
    try:
        cached = Checkpoint(name, snapshot(local_files_only=True), "the Hub's cache")
        return _checked(cached, needs_weights)
    except HFValidationError as error:
        raise UsageError(f"model.checkpoint={name}: neither a folder here nor a valid Hub id") from error
    except UsageError as error:
        tried[1] = f"in the Hub's cache, but {str(error).split(': ', 1)[1]}"
    except OSError:
        pass  # nothing cached
    if constants.HF_HUB_OFFLINE:
        raise _not_found(name, [*tried, "the Hub was not asked: HF_HUB_OFFLINE is set"])
    try:
        HfApi().model_info(name, timeout=HUB_TIMEOUT)
    except RepositoryNotFoundError as error:
        raise _not_found(name, [*tried, "the Hub has no model of this id, or it is private"]) from error
    except HfHubHTTPError as error:
        raise _not_found(name, [*tried, f"the Hub refused: {str(error).splitlines()[0]}"]) from error
    except Exception as error:  # whatever the network stack raises: no name server, no route, a time-out
        raise _not_found(name, [*tried, f"no answer from the Hub ({type(error).__name__})"]) from error
    try:
        fetched = snapshot()
    except Exception as error:  # a gated model, a connection that broke, a full disk
        raise _not_found(name, [*tried, f"fetching it from the Hub failed: {str(error).splitlines()[0]}"]) from error
    return _checked(Checkpoint(name, fetched, "the Hub"), needs_weights)


def _not_found(name: str, tried: list[str]) -> UsageError:
    return UsageError(
        f"model.checkpoint={name} was not found: {'; '.join(tried)}. Three ways out:\n"
        f"  - where there is a network: hf download {name} {' '.join(f'--include {kind!r}' for kind in WANTED)}\n"
        f"    (then copy {os.path.join('~', '.cache', 'huggingface')} here, or set HF_HOME)\n"
        f"  - model.checkpoint=FOLDER with config.json, the tokenizer's files and .safetensors weights\n"
        f"  - without a network: to write, model=gpt2_tiny (of this program) or smollm2 (a Python package); to label,\n"
        f"    model=minilm (a Python package). For task=seq2seq there is none"
    )
