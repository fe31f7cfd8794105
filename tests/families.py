"""Tiny checkpoints of several families, with tokenizers trained on the spot, built without a network."""

import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
    T5Config,
    T5ForConditionalGeneration,
)

TEXTS = [f"{word} is a word of {place} letters, or so they say" for place, word in enumerate("one two three".split())]
WORDS = (
    "good bad fine awful nice poor great sad film book play song very not the a was is it I in Paris Ann Bob".split()
)
VOCABULARY = 160
SIZES: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def _pieces(before: list[str]) -> Tokenizer:
    """Letters, and the words of rows: the library's own trainer gives other pieces in other processes."""
    texts = " ".join([*TEXTS, *WORDS]).lower()
    letters = sorted({letter for letter in texts if letter != " "})
    vocabulary = dict.fromkeys(
        [*before, *letters, *(f"##{letter}" for letter in letters), *" ".join(WORDS).lower().split()]
    )
    numbered = {piece: number for number, piece in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(numbered, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def _small_tokenizer(before: list[str], wordpiece: bool = False, template: str = "") -> Tokenizer:
    """With these special tokens first."""
    tokenizer = _pieces(before) if wordpiece else _trained(before)
    if template:
        named = [(part, before.index(part)) for part in template.split() if part in before]
        tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=named)
    return tokenizer


def _trained(before: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer: Any = trainers.BpeTrainer(
        vocab_size=256 + VOCABULARY, special_tokens=before, initial_alphabet=sorted(alphabet), show_progress=False
    )
    tokenizer.train_from_iterator([*TEXTS, " ".join(WORDS), " ".join(WORDS)], trainer)
    return tokenizer


def save_family(name: str, folder: Path) -> Path:
    """A folder for `model.checkpoint` of the family, with random weights."""
    torch.manual_seed(0)
    tokenizer: Any
    if name in ("bert", "distilbert"):
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        made = _small_tokenizer(special, wordpiece=True, template="[CLS] $A [SEP]")
        names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True))
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, **names)
    elif name == "roberta":
        special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        made = _small_tokenizer(special, template="<s> $A </s>")
        names = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>"}
        more = {"pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>"}
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, **names, **more)
    elif name == "t5":
        made = _small_tokenizer(["<pad>", "</s>", "<unk>"], template="$A </s>")
        names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, **names)
    elif name == "llama":
        made = _small_tokenizer(["<s>", "</s>", "<unk>"], template="<s> $A")
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    else:
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=_small_tokenizer(["<|endoftext|>"]), eos_token="<|endoftext|>"
        )
    _model(name, len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _model(name: str, size: int) -> Any:
    no_dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    match name:
        case "bert":
            return BertForMaskedLM(BertConfig(vocab_size=size, max_position_embeddings=64, **SIZES, **no_dropout))
        case "roberta":
            shape = RobertaConfig(vocab_size=size, max_position_embeddings=66, pad_token_id=1, **SIZES, **no_dropout)
            return RobertaForMaskedLM(shape)
        case "distilbert":
            small = {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 2, "max_position_embeddings": 64}
            return DistilBertForMaskedLM(DistilBertConfig(vocab_size=size, dropout=0.0, attention_dropout=0.0, **small))
        case "t5":
            small = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "dropout_rate": 0.0}
            return T5ForConditionalGeneration(T5Config(vocab_size=size, decoder_start_token_id=0, **small))
        case "llama":
            ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None}
            return LlamaForCausalLM(LlamaConfig(vocab_size=size, max_position_embeddings=64, **SIZES, **ids))
    small = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64, "bos_token_id": 0, "eos_token_id": 0}
    none = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    return GPT2LMHeadModel(GPT2Config(vocab_size=size, **small, **none))


def words(draw: random.Random, number: int) -> list[str]:
    return [draw.choice(WORDS) for _ in range(number)]


def rows(data: str, number: int = 80, longest: int = 14) -> list[dict[str, Any]]:
    """Rows that a model can learn something from."""
    draw, made = random.Random(0), []
    for _ in range(number):
        text = words(draw, draw.randint(3, longest))
        if data == "sentiment":
            made.append(
                {"text": " ".join(text), "label": "positive" if "good" in text or "nice" in text else "negative"}
            )
        elif data == "entities":
            tags = [{"Paris": "B-place", "Ann": "B-person", "Bob": "B-person"}.get(word, "O") for word in text]
            made.append({"tokens": text, "tags": tags})
        elif data == "summaries":
            made.append({"source": " ".join(text), "target": " ".join(text[:2])})
        else:
            made.append({"text": " ".join(text)})
    return made


def enlarge(task: Any) -> None:
    """Weights of the size that training gives them: with those of a new model all predictions are nearly alike."""
    for weight in task.model.parameters():
        if weight.ndim == 2:
            weight.data.mul_(8)
