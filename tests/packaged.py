"""Packages that carry checkpoints as files, made on the spot."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFWriter

from domaintune.models.locating import ASSETS
from domaintune.models.packages import Carrier

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "model.layers.": "blk.",
}


def of_llama_cpp(name: str, weight: torch.Tensor, heads: int) -> tuple[str, Any]:
    """A Llama weight's name and layout in a GGUF file, where the halves of rotated heads alternate."""
    if "q_proj" in name or "k_proj" in name:
        rows, columns = weight.shape
        weight = weight.view(heads, 2, rows // heads // 2, columns).transpose(1, 2).reshape(rows, columns)
    for theirs, its in NAMES.items():
        name = name.replace(theirs, its)
    return name, weight.numpy().astype(np.float32)


def write_gguf(file: Path, model: Any) -> None:
    """A tied Llama with the embedded tokenizer, as llama.cpp keeps it."""
    shape, writer = model.config, GGUFWriter(file, "llama")
    tokenizer = json.loads((ASSETS / "gpt2_tiny" / "tokenizer.json").read_text())
    writer.add_context_length(shape.max_position_embeddings)
    writer.add_embedding_length(shape.hidden_size)
    writer.add_block_count(shape.num_hidden_layers)
    writer.add_feed_forward_length(shape.intermediate_size)
    writer.add_head_count(shape.num_attention_heads)
    writer.add_head_count_kv(shape.num_key_value_heads)
    writer.add_layer_norm_rms_eps(shape.rms_norm_eps)
    writer.add_rope_freq_base(shape.rope_parameters["rope_theta"])
    writer.add_vocab_size(shape.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(sorted(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].get))
    writer.add_token_types([3] + [1] * (shape.vocab_size - 1))
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_chat_template("{{ messages[0]['content'] }}")
    for name, weight in model.state_dict().items():
        if name != "lm_head.weight":
            writer.add_tensor(*of_llama_cpp(name, weight, shape.num_attention_heads))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def install(site: Path, carrier: Carrier, version: str = "0+made") -> Path:
    """A package whose code must not be run; returns the file of the carrier, still to be written."""
    module = carrier.file.split("/")[0]
    information = site / f"{module}-{version}.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Name: {carrier.package}\nVersion: {version}\n")
    file = site / carrier.file
    file.parent.mkdir(parents=True)
    (site / module / "__init__.py").write_text("raise AssertionError('its code was run')\n")
    return file
