"""Folders of sweeps with results made up, as the program leaves them: reading them needs no training."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

DOCUMENTS = 40


def documents(loss: float, seed: int, data: int = 0, tokens_per_byte: float = 0.3, count: int = DOCUMENTS) -> dict:
    """Losses by document, `loss` in the mean over tokens; `data` is which documents, `seed` the run's own luck."""
    of_data, of_run = np.random.default_rng(data), np.random.default_rng([seed, 1])
    size = of_data.lognormal(5, 0.7, count).astype(np.int64) + 9
    hardness = of_data.normal(0, 0.3, count)
    tokens = np.maximum(1, (size * tokens_per_byte).astype(np.int64))
    per_token = loss + hardness - (hardness * tokens).sum() / tokens.sum() + of_run.normal(0, 0.002, count)
    hashes = of_data.integers(2**63, size=(count, 2)).astype(np.uint64)
    return {"hash": hashes, "loss": per_token * tokens, "tokens": tokens, "bytes": size}


def trial(sweep: Path, settings: dict[str, Any], kept: dict | None, tokenizer: str = "a", **result: Any) -> Path:
    """A trial with these settings, finished where `kept` gives its losses."""
    folder = sweep / ",".join(f"{key}={value}" for key, value in settings.items()).replace("/", "_")
    folder.mkdir(parents=True)
    config = OmegaConf.create(
        {
            "name": sweep.name,
            "seed": 0,
            "task": {"name": "causal_lm", "monitor": "val/loss", "mode": "min"},
            "model": {"checkpoint": "gpt2", "measured_lr": {"gpt2": 1.0}},
            "optim": {"lr": 5e-5, "weight_decay": 0.01},
            "data": {"path": "notes.txt"},
            "logger": {"tensorboard": {"save_dir": str(folder)}},
        }
    )
    for key, value in settings.items():
        OmegaConf.update(config, key, value)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(config))
    found: dict[str, Any] = {"status": "failed", "command": "python train.py -m", "started": f"{len(settings)}"}
    if kept is not None:
        nats, tokens, text_bytes = (float(kept[name].sum()) for name in ("loss", "tokens", "bytes"))
        after = {
            "val/loss": nats / tokens,
            "val/perplexity": float(np.exp(nats / tokens)),
            "val/bits_per_byte": nats / np.log(2) / text_bytes,
        }
        sha256 = str(np.sort(kept["hash"], axis=0).sum())
        validation = {"documents": len(kept["loss"]), "sha256": sha256, "tokenizer": tokenizer}
        found |= {"status": "finished", "metrics": {"after": after}, "validation": validation}
        np.savez(folder / "validation.npz", allow_pickle=False, **kept)
    (folder / "result.json").write_text(json.dumps(found | result))
    return folder


def rates(sweep: Path, losses: dict[float, float], seeds: int = 3, spread: float = 0.01, **settings: Any) -> None:
    """A sweep over learning rates, with the loss that each comes to, and seeds that differ by about `spread`."""
    for lr, loss in losses.items():
        for seed in range(seeds):
            luck = spread * ((-1.0, 0.2, 0.8, -0.5, 0.5)[seed])
            chosen = {"optim.lr": lr, **settings, "seed": seed}
            trial(sweep, chosen, documents(loss + luck, seed=hash((lr, seed)) % 2**31))
