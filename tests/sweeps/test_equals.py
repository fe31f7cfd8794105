"""Of two configurations that are the same, none shall win: with runs that were really trained."""

from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import lightning as L
import numpy as np
import pytest
import sweeps_on_disk as made
import tiny

from domaintune.config.schema import DataConfig, OptimConfig, SchedulerConfig
from domaintune.data.language_datamodule import LanguageDataModule
from domaintune.data.splitting import read_splits
from domaintune.kernels.attention import isolate_documents
from domaintune.sweeps.comparing import TIE, Measured, compare, draw_documents
from domaintune.sweeps.leaderboard import read
from domaintune.tasks.causal_lm import CausalLM
from domaintune.trainers import quiet_libraries

REPETITIONS, SEEDS, REDRAWN = 20, 3, 2000


def trained(data: LanguageDataModule, vocabulary: int, seed: int, lr: float) -> dict[str, np.ndarray]:
    """What a model of this seed, of its start and of its order of the data, makes of each validation document."""
    model = tiny.gpt2(vocab_size=vocabulary, seed=seed)
    isolate_documents(model)
    task = CausalLM(model, OptimConfig(lr=lr), SchedulerConfig(name="cosine"))
    quiet_libraries()
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=12,
        max_epochs=-1,
        num_sanity_val_steps=0,
        limit_val_batches=1.0,
        val_check_interval=10**6,
        check_val_every_n_epoch=None,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(task, datamodule=data)
    trainer.validate(task, datamodule=data, verbose=False)
    return data.by_document("val", task.of_windows)


@pytest.fixture
def sweeps(tokenizer: Any, tmp_path: Path) -> Callable[..., Path]:
    """Makes the folder of a sweep over `data.subset`, which moves no number here, or over learning rates that do."""
    path = tiny.jsonl(tmp_path / "topics.jsonl", *(text[:400] for _, text in sorted(topics.items())))
    cache = str(tmp_path / "cache")

    def sweep(number: int, rates: tuple[float, float]) -> Path:
        folder = tmp_path / f"sweep{number}"
        settings = DataConfig(path=path, val_fraction=0.4, block_size=64, batch_size=4)
        splits = read_splits(settings, cache)
        for seed in range(2 * SEEDS):  # others for each configuration: with the same they would be the same run
            luck = 100 * number + seed
            data = LanguageDataModule(settings, splits, tokenizer, luck, cache)
            kept = trained(data, len(tokenizer), luck, rates[seed // SEEDS])
            made.trial(folder, {"data.subset": seed // SEEDS, "seed": luck}, kept)
        return folder

    return sweep


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(900)
def test_of_two_configurations_that_are_the_same_hardly_ever_one_wins(sweeps: Callable[..., Path]) -> None:
    """In twenty sweeps, and in the many more that the same runs could have been."""
    wins, trials = 0, []
    for number in range(REPETITIONS):
        board = read(sweeps(number, (1e-2, 1e-2)))
        (ranking,) = board.rankings
        assert [len(row.finished) for row in ranking.rows] == [SEEDS, SEEDS]
        assert ranking.judged_by_documents
        wins += "better" in ranking.conclusion()
        trials += board.sweep.trials
    rate = redrawn([trial.folder / "validation.npz" for trial in trials])
    print(f"a winner in {wins} of {REPETITIONS} sweeps of equals, and in {rate:.1%} of {REDRAWN} drawn of their runs")
    assert wins <= REPETITIONS // 10
    assert rate < 0.06


def redrawn(files: list[Path]) -> float:
    """The share of sweeps of two times three of these runs, drawn by chance, in which one wins."""
    kept = [np.load(file, allow_pickle=False) for file in files]
    losses, tokens = (np.stack([arrays[name].astype(np.float64) for arrays in kept]) for name in ("loss", "tokens"))
    drawn = draw_documents(losses, tokens, lambda ratio: ratio)
    values, random, wins = losses.sum(1) / tokens.sum(1), np.random.default_rng(0), 0
    for _ in range(REDRAWN):
        chosen = np.split(random.permutation(len(files))[: 2 * SEEDS], 2)
        sides = [Measured(values[runs], drawn[runs], losses.shape[1]) for runs in chosen]
        (found,) = compare(sides[0], sides[1:])
        wins += found.verdict != TIE
    return wins / REDRAWN


@pytest.mark.slow
def test_of_two_configurations_that_differ_the_better_one_wins(sweeps: Callable[..., Path]) -> None:
    (ranking,) = read(sweeps(0, (1e-2, 2e-3))).rankings
    assert ranking.conclusion() == "data.subset=0 is better than every other."
