from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sweeps_on_disk as made

from domaintune.runs.outcomes import read_sweep, varied_keys
from domaintune.sweeps.comparing import FAILS, TIE, UNDECIDABLE, WORSE
from domaintune.sweeps.ranking import Ranking, rank


def rankings(folder: Path) -> list[Ranking]:
    trials = read_sweep(folder).trials
    return rank(trials, varied_keys(trials))


def verdicts(ranking: Ranking) -> list[str | None]:
    return [row.comparison and row.comparison.verdict for row in ranking.rows]


def test_seeds_are_one_configuration_and_a_clear_difference_is_told(tmp_path: Path) -> None:
    made.rates(tmp_path, {1e-3: 3.0, 1e-2: 2.5, 1e-1: 4.0})
    (ranking,) = rankings(tmp_path)
    assert [row.settings["optim.lr"] for row in ranking.rows] == [1e-2, 1e-3, 1e-1]
    assert [len(row.finished) for row in ranking.rows] == [3, 3, 3]
    assert ranking.rows[0].mean == pytest.approx(2.5, abs=0.01)
    assert ranking.rows[0].sd == pytest.approx(0.0092, abs=0.002)
    assert verdicts(ranking) == [None, WORSE, WORSE]
    assert ranking.judged_by_documents
    assert ranking.documents == made.DOCUMENTS
    assert ranking.conclusion() == "optim.lr=0.01 is better than every other."


def test_a_tie_is_told(tmp_path: Path) -> None:
    made.rates(tmp_path, {1e-3: 2.505, 1e-2: 2.5, 1e-1: 4.0})
    (ranking,) = rankings(tmp_path)
    assert verdicts(ranking) == [None, TIE, WORSE]
    assert ranking.conclusion() == "No winner: optim.lr=0.01 ties with optim.lr=0.001."


def test_with_fewer_than_three_seeds_that_is_said(tmp_path: Path) -> None:
    made.rates(tmp_path, {1e-3: 3.0, 1e-2: 2.5}, seeds=2)
    (ranking,) = rankings(tmp_path)
    assert verdicts(ranking) == [None, UNDECIDABLE]
    assert "not decidable with fewer than three seeds" in ranking.conclusion()


def test_different_tokenizers_are_ranked_by_bits_per_byte(tmp_path: Path) -> None:
    """Longer tokens have a higher loss each, and say less about the text where there are fewer."""
    for seed in range(3):
        short = made.documents(2.0 + seed / 500, seed, tokens_per_byte=0.5)
        long = made.documents(3.0 + seed / 500, seed + 9, tokens_per_byte=0.25)
        made.trial(tmp_path, {"model.checkpoint": "short", "seed": seed}, short, tokenizer="a")
        made.trial(tmp_path, {"model.checkpoint": "long", "seed": seed}, long, tokenizer="b")
    (ranking,) = rankings(tmp_path)
    assert ranking.metric == "val/bits_per_byte"
    assert "tokenizers differ" in ranking.why
    assert [row.settings["model.checkpoint"] for row in ranking.rows] == ["long", "short"]
    assert ranking.rows[0].values[0] == pytest.approx(3.0 * 0.25 / np.log(2), rel=0.02)
    assert verdicts(ranking) == [None, WORSE]


@pytest.mark.parametrize(
    ("task", "monitor", "rankings_"),
    [("masked_lm", "val/accuracy", 2), ("seq2seq", "val/loss", 2), ("token_classification", "val/loss", 1)],
)
def test_a_metric_of_tokens_is_never_compared_across_tokenizers(
    tmp_path: Path, task: str, monitor: str, rankings_: int
) -> None:
    """Of words and texts it can be."""
    kept = made.documents(2.0, 0)
    settings = {"task.name": task, "task.monitor": monitor, "task.mode": "max"}
    for seed, tokenizer in enumerate("aab"):
        result = {"metrics": {"after": {monitor: 0.5}}, "validation": {"tokenizer": tokenizer}, "data": {"sha256": "d"}}
        made.trial(tmp_path, {**settings, "model.checkpoint": tokenizer, "seed": seed}, kept, **result)
    found = rankings(tmp_path)
    assert len(found) == rankings_
    assert all(ranking.data == "d" for ranking in found)
    assert [bool(ranking.why) for ranking in found] == [rankings_ == 2] * rankings_
    if rankings_ == 2:
        assert (
            found[0].why
            == f"a ranking for each tokenizer: their tokenizers differ, and {monitor} is of their own tokens"
        )


def test_what_cannot_move_the_numbers_splits_no_configuration(tmp_path: Path) -> None:
    for lr, loss in {1e-3: 3.0, 1e-2: 2.5}.items():
        for seed in range(3):
            more = (
                {"sweep.retry_failed": True, "data.num_workers": 2, "callbacks.progress.line_seconds": 1}
                if seed
                else {}
            )
            made.trial(tmp_path, {"optim.lr": lr, "seed": seed, **more}, made.documents(loss + seed / 500, seed))
    (ranking,) = rankings(tmp_path)
    assert [list(row.settings) for row in ranking.rows] == [["optim.lr"]] * 2
    assert verdicts(ranking) == [None, WORSE]


def test_different_validation_data_are_never_in_one_ranking(tmp_path: Path) -> None:
    made.rates(tmp_path, {1e-3: 3.0, 1e-2: 2.5})
    made.trial(tmp_path, {"data.path": "other.txt"}, made.documents(1.0, seed=0, data=1))
    first, second = rankings(tmp_path)
    assert [len(ranking.rows) for ranking in (first, second)] == [2, 1]
    assert first.data != second.data
    assert second.conclusion().startswith("There is one configuration")


def test_another_metric_is_another_ranking(tmp_path: Path) -> None:
    made.trial(tmp_path, {"optim.lr": 1.0}, made.documents(3.0, seed=0))
    made.trial(tmp_path, {"task.monitor": "val/bits_per_byte"}, made.documents(3.0, seed=1))
    assert sorted(ranking.metric for ranking in rankings(tmp_path)) == ["val/bits_per_byte", "val/loss"]


def test_trials_without_a_result_count_for_nothing_and_are_told(tmp_path: Path) -> None:
    made.rates(tmp_path, {1e-3: 3.0, 1e-2: 2.5}, seeds=3)
    made.trial(tmp_path, {"optim.lr": 1e-2, "seed": 3}, None)
    made.trial(tmp_path, {"optim.lr": 1.0}, None)
    (ranking,) = rankings(tmp_path)
    assert [(len(row.finished), len(row.others)) for row in ranking.rows] == [(3, 0), (3, 1)]


def test_a_configuration_whose_seeds_fail_is_ranked_as_one_that_fails(tmp_path: Path) -> None:
    """The seeds that diverged would be missing from its mean."""
    made.rates(tmp_path, {1e-3: 3.0, 1e-2: 2.5, 1e-1: 2.0}, seeds=3)
    made.trial(tmp_path, {"optim.lr": 1e-1, "seed": 3}, None)
    (ranking,) = rankings(tmp_path)
    assert [row.settings["optim.lr"] for row in ranking.rows] == [1e-2, 1e-3, 1e-1]
    assert verdicts(ranking) == [None, WORSE, FAILS]
    assert ranking.conclusion() == "optim.lr=0.01 is better than every other."


def test_where_all_others_fail_that_is_said(tmp_path: Path) -> None:
    made.rates(tmp_path, {1e-3: 3.0, 1e-2: 2.5}, seeds=3)
    made.trial(tmp_path, {"optim.lr": 1e-2, "seed": 3}, None)
    (ranking,) = rankings(tmp_path)
    assert ranking.conclusion() == "optim.lr=0.001 is the only one of which no seed failed."


@pytest.mark.parametrize(
    ("task", "metric", "setting"),
    [
        ("masked_lm", "val/accuracy", "task.mask_fraction"),
        ("seq2seq", "val/loss", "data.target_size"),
        ("seq2seq", "val/rougeL", "task.generate_examples"),
        ("sequence_classification", "val/loss", "task.class_weights"),
    ],
)
def test_what_is_measured_otherwise_is_never_in_one_ranking(
    tmp_path: Path, task: str, metric: str, setting: str
) -> None:
    for value, loss in ((1, 3.0), (2, 2.0)):
        for lr in (1e-3, 1e-2):
            result = {"metrics": {"after": {metric: loss + lr}}}
            monitored = {"task.name": task, "task.monitor": metric, setting: value, "optim.lr": lr}
            made.trial(tmp_path, monitored, made.documents(loss, seed=0), **result)
    found = rankings(tmp_path)
    assert [len(ranking.rows) for ranking in found] == [2, 2]
    assert sorted(ranking.measured_by[setting] for ranking in found) == [1, 2]


def test_what_changes_only_the_loss_splits_no_other_metric(tmp_path: Path) -> None:
    for value in ("none", "balanced"):
        result = {"metrics": {"after": {"val/f1": 0.5}}}
        monitored = {"task.name": "sequence_classification", "task.monitor": "val/f1", "task.class_weights": value}
        made.trial(tmp_path, monitored, made.documents(3.0, seed=0), **result)
    (ranking,) = rankings(tmp_path)
    assert len(ranking.rows) == 2


def test_runs_that_kept_no_losses_by_document_are_judged_over_seeds_alone(tmp_path: Path) -> None:
    made.rates(tmp_path, {1e-3: 3.0, 1e-2: 2.5})
    next(tmp_path.glob("*/validation.npz")).unlink()
    (ranking,) = rankings(tmp_path)
    assert (ranking.judged_by_documents, ranking.documents) == (False, None)
    assert verdicts(ranking) == [None, WORSE]


@pytest.mark.parametrize("metric", ["val/loss", "val/perplexity", "val/bits_per_byte"])
def test_what_a_metric_is_computed_from_gives_that_metric(tmp_path: Path, metric: str) -> None:
    """The draws of documents are of the number that is ranked by."""
    made.rates(tmp_path, {1e-3: 3.0, 1e-2: 2.5}, **{"task.monitor": metric})
    from domaintune.sweeps import ranking as module

    seen: dict[str, Any] = {}

    def draw(numerators: Any, denominators: Any, function: Any) -> Any:
        seen["values"] = function(numerators.sum(1) / denominators.sum(1))
        return np.zeros((len(numerators), 2)) + seen["values"][:, None]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "draw_documents", draw)
        (ranking,) = rankings(tmp_path)
    assert seen["values"] == pytest.approx([value for row in ranking.rows for value in row.values])


def test_documents_that_lie_in_another_order_are_paired_by_their_hash(tmp_path: Path) -> None:
    made.rates(tmp_path, {1e-3: 2.51, 1e-2: 2.5}, spread=0.001)
    (before,) = rankings(tmp_path)
    file = next((tmp_path).glob("optim.lr=0.01,seed=1/validation.npz"))
    with np.load(file) as arrays:
        np.savez(file, **{name: array[::-1] for name, array in arrays.items()})
    (after,) = rankings(tmp_path)
    assert after.rows[1].comparison == before.rows[1].comparison


def test_the_lowest_loss_is_the_best_whatever_an_earlier_version_wrote(tmp_path: Path) -> None:
    made.rates(tmp_path, {1e-3: 3.0, 1e-2: 2.5}, **{"task.mode": "max"})
    (ranking,) = rankings(tmp_path)
    assert ranking.lower_is_better
    assert ranking.rows[0].settings["optim.lr"] == 1e-2
