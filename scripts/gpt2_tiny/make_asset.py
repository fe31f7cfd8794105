"""A finished pretraining run -> the embedded checkpoint: weights in bfloat16, tokenizer, model card.

    python scripts/gpt2_tiny/make_asset.py RUN_FOLDER CORPUS [OUT]

OUT is the package's own folder unless it is given; what is there is replaced.

The figures on the card are measured here, on the weights as they are stored and on the documents that the run put
aside for the end (its test side).
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from domaintune.config.schema import Config
from domaintune.data.splitting import read_splits
from domaintune.models.locating import ASSETS, locate
from domaintune.preparing import Prepared
from domaintune.runs.folder import config_of_run
from domaintune.training import evaluate

FOLDER = ASSETS / "gpt2_tiny"
LIMIT_BYTES = 16_000_000


def store(export: Path, out: Path) -> None:
    """The export in bfloat16, in place of what was there."""
    if out.exists():
        shutil.rmtree(out)
    AutoModelForCausalLM.from_pretrained(export, dtype=torch.bfloat16).save_pretrained(out)
    AutoTokenizer.from_pretrained(export).save_pretrained(out)
    size = (out / "model.safetensors").stat().st_size
    if size > LIMIT_BYTES:
        raise SystemExit(f"the weights are {size:,} bytes, more than {LIMIT_BYTES:,}")


def measure(config: Config, out: Path) -> dict[str, float]:
    """The stored checkpoint on the run's test documents."""
    config.model.init, config.model.checkpoint = "pretrained", str(out)
    metrics, *_ = evaluate(Prepared(config, read_splits(config.data, config.paths.cache), locate(str(out))))
    return metrics


def card(result: dict, metrics: dict[str, float], sources: str) -> str:
    """What it was trained on, for how long, and how well it does."""
    train, test, precision = result["data"]["train"], result["data"]["test"], result["precision"]
    seconds = result.get("fit_seconds") or result["training_seconds"]
    passes = result["tokens_trained"] / train["predicted_tokens"]
    return f"""---
library_name: transformers
pipeline_tag: text-generation
language: en
license: mit
tags: [domaintune]
---
# gpt2_tiny

A `GPT2LMHeadModel` of {result["weights"]["parameters"] / 1e6:.1f}M parameters: 6 layers of 256, 4 heads, 512
positions, a byte-level BPE of 8192 tokens trained on the same text. It was pretrained by this program from random
weights, to be fine-tuned where there is no network and no GPU. It writes English that hangs together for a line or two;
it knows no facts, and was neither aligned nor filtered. Weights are stored in bfloat16.

Trained on {result["tokens_trained"]:,} tokens: {passes:.2f} passes over {train["documents"]:,} documents of
{train["tokens"]:,} tokens, in {result["steps"]:,} steps and {seconds / 3600:.1f} hours, in
{precision["name"]} on {precision["device"]} ({precision["why"]}). `conf/experiment/pretrain_tiny.yaml` has the
settings and the commands; the code was that of commit {(result["git"]["commit"] or "unknown")[:12]}.

| held out: {test["documents"]} documents, {test["predicted_tokens"]:,} predicted tokens | |
|---|---|
| loss (nats per token) | {metrics["test/loss"]:.4f} |
| perplexity (per token of its own vocabulary) | {metrics["test/perplexity"]:.2f} |
| bits per byte | {metrics["test/bits_per_byte"]:.4f} |

## Text

General English in the public domain or under free licences, gathered from packages by
`scripts/gpt2_tiny/gather_corpus.py`. Python's documentation, which the embedded domain corpus is made of, is not in it.

{sources}"""


def main() -> None:
    if len(sys.argv) not in (3, 4):
        raise SystemExit(__doc__)
    run, corpus, out = map(Path, [*sys.argv[1:], str(FOLDER)][:3])
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    config = config_of_run(run)
    config.data.path = str(corpus)
    store(run / "export", out)
    sources = (corpus / "SOURCES.md").read_text(encoding="utf-8")
    table = "\n".join(line for line in sources.splitlines() if line.startswith("|"))
    (out / "README.md").write_text(card(result, measure(config, out), table + "\n"), encoding="utf-8")


if __name__ == "__main__":
    main()
