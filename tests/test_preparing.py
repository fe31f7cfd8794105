from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import tiny

from domaintune.config.schema import Config, DataConfig, ModelConfig, PathsConfig
from domaintune.config.tasks import declared_task
from domaintune.errors import UsageError
from domaintune.models.locating import Checkpoint, locate
from domaintune.preparing import check_block_size, prepare


def config(cache: Path, checkpoint: Path, **data: Any) -> Config:
    return Config(
        model=ModelConfig(checkpoint=str(checkpoint)),
        task=declared_task("causal_lm"),
        data=DataConfig(**data),
        paths=PathsConfig(cache=str(cache)),
    )


def test_it_reads_the_data_and_finds_the_checkpoint(corpus_cache: Path, tiny_checkpoint: Path) -> None:
    wanted = config(corpus_cache, tiny_checkpoint, block_size=64)
    prepared = prepare(wanted)
    assert prepared.config is wanted
    assert prepared.checkpoint == locate(str(tiny_checkpoint))
    assert len(prepared.splits.of("train")) > len(prepared.splits.of("val")) > 0


def test_names_seeds_and_output_folders_make_nothing_in_the_cache_anew(tmp_path: Path, tiny_checkpoint: Path) -> None:
    texts = (f"{number:03} {chr(1000 + number) * 3} {number**5}" for number in range(100))
    path = tiny.jsonl(tmp_path / "a.jsonl", *texts)
    wanted = config(tmp_path / "cache", tiny_checkpoint, path=path, block_size=64, dedup="near")
    hashes = prepare(wanted).hashes()
    before = set((tmp_path / "cache").glob("*/*"))
    assert {entry.parent.name for entry in before} == {"documents", "near_duplicates"}
    wanted.name, wanted.seed = "other", 7
    wanted.paths = PathsConfig(logs="elsewhere", runs="elsewhere/runs", cache=f"{tmp_path}/here/../cache")
    (tmp_path / "here").mkdir()
    assert prepare(wanted).hashes() == hashes
    assert set((tmp_path / "cache").glob("*/*")) == before


def test_the_hash_of_the_data_follows_the_texts_and_random_weights_have_none(
    tmp_path: Path, tiny_checkpoint: Path
) -> None:
    texts = [f"document {number}" for number in range(100)]
    made = []
    for init, rows in (("pretrained", texts), ("random", texts), ("random", texts[1:])):
        wanted = config(
            tmp_path / "cache", tiny_checkpoint, path=tiny.jsonl(tmp_path / "a.jsonl", *rows), block_size=64
        )
        wanted.model.init = init
        made.append(prepare(wanted).hashes())
    assert made[0]["data"] == made[1]["data"] != made[2]["data"]
    assert made[0]["weights"] is not None
    assert made[1]["weights"] is None


def test_a_block_longer_than_the_models_positions_is_told(corpus_cache: Path, tiny_checkpoint: Path) -> None:
    with pytest.raises(UsageError, match=r"data\.block_size=65 .*64 positions"):
        prepare(config(corpus_cache, tiny_checkpoint, block_size=65))


@pytest.mark.parametrize(("family", "limited"), [("bart", True), ("t5", False), ("mt5", False), ("longt5", False)])
def test_the_sizes_of_both_sides_of_a_pair_are_held_against_positions_that_limit(
    tmp_path: Path, family: str, limited: bool
) -> None:
    (tmp_path / "config.json").write_text(f'{{"model_type": "{family}", "n_positions": 64}}')
    checkpoint = Checkpoint("some", tmp_path, "local folder")
    for size in ("block_size", "target_size"):
        wanted = config(tmp_path, tmp_path, format="pairs", **{"block_size": 64, "target_size": 64, size: 65})
        with pytest.raises(UsageError, match=f"{size}=65 .*64 positions") if limited else nullcontext():
            check_block_size(wanted, checkpoint)


def test_random_weights_need_a_shape_only(corpus_cache: Path, tmp_path: Path) -> None:
    tiny.gpt2().config.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    wanted = config(corpus_cache, tmp_path, block_size=64)
    wanted.model.init = "random"
    assert prepare(wanted).checkpoint.folder == tmp_path
    wanted.model.init = "pretrained"
    with pytest.raises(UsageError, match=r"no \.safetensors weights"):
        prepare(wanted)
