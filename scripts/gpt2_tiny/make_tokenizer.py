"""Train the tokenizer of the small embedded GPT-2 and write it beside the model's configuration.

Usage: python scripts/gpt2_tiny/make_tokenizer.py CORPUS_FOLDER OUT_FOLDER

CORPUS_FOLDER holds the .jsonl files of gather_corpus.py. The tokenizer is a byte-level BPE like
GPT-2's (the same pre-tokenizer, no space put in front), but with 8192 tokens: <|endoftext|>, the 256
bytes and 7935 merges. As every byte is a token, it encodes any text and gives it back unchanged.

OUT_FOLDER gets the tokenizer as a Hugging Face fast tokenizer and the config.json of the untrained
model, so that AutoTokenizer and AutoConfig open it. The same corpus gives the same tokenizer.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import AutoTokenizer, GPT2Config, GPT2TokenizerFast

VOCABULARY = 8192
CONTEXT = 512
END_OF_TEXT = "<|endoftext|>"
PROBES = (
    "Hello, world!",
    "  two leading spaces, don't touch them",
    "tabs\tand\n\n  new lines\r\n and a trailing space ",
    "caf\u00e9 \u65e5\u672c\u8a9e \U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 \u0000 end .",
    "a , b ; isn't it ? 'quoted' n't 've",
)


def texts(folder: Path) -> Iterator[str]:
    """Every document of the corpus, in the order of the files' names."""
    for path in sorted(folder.glob("*.jsonl")):
        with path.open(encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)["text"]


def train(folder: Path) -> Tokenizer:
    """Train the byte-level BPE on the whole corpus."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(folder), trainer)
    return tokenizer


def save(tokenizer: Tokenizer, out: Path) -> None:
    """Write the tokenizer and the model's configuration in Hugging Face's layout."""
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(out / "tokenizer.json"))
    fast = GPT2TokenizerFast.from_pretrained(
        out,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        unk_token=END_OF_TEXT,
        add_prefix_space=False,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
    fast.save_pretrained(out)
    GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=CONTEXT,
        n_embd=256,
        n_layer=6,
        n_head=4,
        activation_function="gelu_pytorch_tanh",  # the same function as gelu_new, in one kernel
        bos_token_id=fast.bos_token_id,
        eos_token_id=fast.eos_token_id,
        tie_word_embeddings=True,
        architectures=["GPT2LMHeadModel"],
    ).save_pretrained(out)


def check(out: Path) -> None:
    """Open what was written and make sure that it is whole and gives text back unchanged."""
    opened = AutoTokenizer.from_pretrained(out)
    if len(opened) != VOCABULARY:
        raise ValueError(f"{len(opened)} tokens instead of {VOCABULARY}: is the corpus too small?")
    for probe in PROBES:
        back = opened.decode(opened(probe)["input_ids"])
        if back != probe:
            raise ValueError(f"the tokenizer turned {probe!r} into {back!r}")


def main() -> int:
    """Train, write and check."""
    parser = argparse.ArgumentParser(description="Train the tokenizer of the small GPT-2.")
    parser.add_argument("corpus", type=Path, help="folder of the .jsonl files that gather_corpus.py wrote")
    parser.add_argument("out", type=Path, help="folder for the tokenizer and config.json")
    arguments = parser.parse_args()
    if not any(arguments.corpus.glob("*.jsonl")):
        print(f"no .jsonl file in {arguments.corpus}: run gather_corpus.py first", file=sys.stderr)
        return 1
    save(train(arguments.corpus), arguments.out)
    check(arguments.out)
    print(f"{VOCABULARY} tokens, written to {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
