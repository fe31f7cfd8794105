"""A small model and a small text, made on the spot: what is certified doesn't depend on their size."""

import json
import shutil
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

from domaintune.models.locating import ASSETS

BLOCK_SIZE = 64
SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_positions": BLOCK_SIZE, "n_embd": 64, "n_layer": 2, "n_head": 4},
    "llama": {
        "max_position_embeddings": BLOCK_SIZE,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "tie_word_embeddings": False,
    },
}
DROPOUT = {"gpt2": "model.dropout", "llama": "model.attention_dropout"}  # the setting of the one that each has


def make_model(folder: Path, shape: str) -> None:
    """A model of random weights with the embedded tokenizer, as transformers saves one."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(shape, vocab_size=8192, bos_token_id=0, eos_token_id=0, **SHAPES[shape])
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    for file in (ASSETS / "gpt2_tiny").glob("tokenizer*"):
        shutil.copy(file, folder)


def make_text(file: Path, documents: range, longest: int) -> None:
    """Python's help topics, each cut to a length of its own in characters."""
    texts = [text[: 40 + 97 * number % (longest - 40)] for number, (_, text) in enumerate(sorted(topics.items()))]
    rows = [json.dumps({"text": texts[number]}) for number in documents]
    file.write_text("\n".join(rows) + "\n", encoding="utf-8")


def settings(folder: Path, shape: str, dropout: float = 0.0) -> list[str]:
    """The overrides that name both; made where they are missing."""
    if not (folder / "model").exists():
        make_model(folder / "model", shape)
        make_text(folder / "train.jsonl", range(16), longest=110)  # a window each
        make_text(folder / "val.jsonl", range(16, 40), longest=400)
        make_text(folder / "more.jsonl", range(70), longest=400)
    return [
        f"model.checkpoint={folder}/model",
        f"{DROPOUT[shape]}={dropout}",
        f"data.block_size={BLOCK_SIZE}",
        "trainer.precision=32",
        "deterministic=true",
        f"paths.runs={folder}/runs",
        f"paths.cache={folder}/cache",
    ]
