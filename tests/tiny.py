"""Models of a few thousand parameters, and other small things that many tests make."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from transformers import (
    BertConfig,
    BertModel,
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTJConfig,
    GPTJForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from domaintune.config.schema import DataConfig
from domaintune.data.batching import IGNORED, Window
from domaintune.data.documents import Documents, read_documents
from domaintune.data.finding import Source
from domaintune.data.formats.choosing import fields_of

VOCABULARY = 96
OPENAI: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 2, "bos_token_id": 0, "eos_token_id": 0}
LLAMA: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 0,
}


def gpt2(vocab_size: int = VOCABULARY, n_positions: int = 64, seed: int = 0, **settings: Any) -> GPT2LMHeadModel:
    """GPT-2 with tied embeddings, without dropout unless asked for."""
    dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    torch.manual_seed(seed)
    shape = {**OPENAI, **dropout, **settings}
    return GPT2LMHeadModel(GPT2Config(vocab_size=vocab_size, n_positions=n_positions, **shape))


def llama(vocab_size: int = VOCABULARY, **settings: Any) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocab_size, **{**LLAMA, **settings}))


def bert(vocab_size: int = VOCABULARY, **settings: Any) -> BertModel:
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    return BertModel(BertConfig(vocab_size=vocab_size, max_position_embeddings=64, **{**shape, **settings}))


def t5(vocab_size: int = VOCABULARY) -> T5ForConditionalGeneration:
    torch.manual_seed(0)
    shape = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0}
    return T5ForConditionalGeneration(T5Config(vocab_size=vocab_size, dropout_rate=0.0, **shape))


def gptj() -> GPTJForCausalLM:
    """Its head has a bias, here not zero."""
    torch.manual_seed(0)
    model = GPTJForCausalLM(GPTJConfig(vocab_size=VOCABULARY, n_positions=64, rotary_dim=8, **OPENAI))
    torch.nn.init.normal_(model.lm_head.bias)
    return model


def phi() -> PhiForCausalLM:
    """Its head has a bias."""
    torch.manual_seed(0)
    return PhiForCausalLM(PhiConfig(vocab_size=VOCABULARY, **LLAMA))


def cohere() -> CohereForCausalLM:
    """Its logits are scaled."""
    torch.manual_seed(0)
    return CohereForCausalLM(CohereConfig(vocab_size=VOCABULARY, pad_token_id=0, **LLAMA))


def granite() -> GraniteForCausalLM:
    """Its logits are divided."""
    torch.manual_seed(0)
    return GraniteForCausalLM(GraniteConfig(vocab_size=VOCABULARY, logits_scaling=4.0, **LLAMA))


def gemma2() -> Gemma2ForCausalLM:
    """Its logits are capped by a tanh, which shows little where they are small."""
    torch.manual_seed(0)
    shape = {**LLAMA, "head_dim": 16, "final_logit_softcapping": 30.0}
    return Gemma2ForCausalLM(Gemma2Config(vocab_size=VOCABULARY, pad_token_id=0, **shape))


def window(ids: torch.Tensor, text_bytes: int) -> Window:
    """A window of plain text, all of whose tokens but the first are predicted."""
    labels = ids.clone()
    labels[0] = IGNORED
    return {"input_ids": ids, "labels": labels, "bytes": text_bytes}


TEXT = fields_of(DataConfig())  # how plain text is read without further settings


def jsonl(file: Path, *rows: Any) -> str:
    """A .jsonl file of these rows (a string is a row with a text); returns its path."""
    file.parent.mkdir(parents=True, exist_ok=True)
    objects = [{"text": row} if isinstance(row, str) else row for row in rows]
    file.write_text("".join(json.dumps(row) + "\n" for row in objects), encoding="utf-8")
    return str(file)


def documents(folder: Path, *rows: Any, format: str = "text") -> Documents:
    """Documents of these texts or rows, with their file and their cache in `folder`."""
    name = hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:8]
    source = Source(jsonl(folder / f"{name}.jsonl", *rows), ".jsonl")
    return read_documents([source], fields_of(DataConfig(format=format)), str(folder / "cache"))


def hub_cache(cache: Path, name: str, files: dict[str, bytes]) -> Path:
    """A snapshot of `name` laid out as the Hub's client does it; returns its folder."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = cache / f"models--{name.replace('/', '--')}"
    folder = repository / "snapshots" / commit
    folder.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    for file, content in files.items():
        (folder / file).write_bytes(content)
    return folder
