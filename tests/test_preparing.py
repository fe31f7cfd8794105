from pathlib import Path
from typing import Any

import pytest
import tiny

from domaintune.config import Config, DataConfig, ModelConfig, PathsConfig, UsageError
from domaintune.models.locating import locate
from domaintune.preparing import prepare


def config(cache: Path, checkpoint: Path, **data: Any) -> Config:
    return Config(
        model=ModelConfig(checkpoint=str(checkpoint)), data=DataConfig(**data), paths=PathsConfig(cache=str(cache))
    )


def test_it_reads_the_data_and_finds_the_checkpoint(corpus_cache: Path, tiny_checkpoint: Path) -> None:
    wanted = config(corpus_cache, tiny_checkpoint, block_size=64)
    prepared = prepare(wanted)
    assert prepared.config is wanted
    assert prepared.checkpoint == locate(str(tiny_checkpoint))
    assert len(prepared.splits.train) > len(prepared.splits.val) > 0


def test_a_block_longer_than_the_models_positions_is_told(corpus_cache: Path, tiny_checkpoint: Path) -> None:
    with pytest.raises(UsageError, match=r"data\.block_size=65 .*64 positions"):
        prepare(config(corpus_cache, tiny_checkpoint, block_size=65))


def test_random_weights_need_a_shape_only(corpus_cache: Path, tmp_path: Path) -> None:
    tiny.gpt2().config.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    wanted = config(corpus_cache, tmp_path, block_size=64)
    wanted.model.init = "random"
    assert prepare(wanted).checkpoint.folder == tmp_path
    wanted.model.init = "pretrained"
    with pytest.raises(UsageError, match=r"no \.safetensors weights"):
        prepare(wanted)
