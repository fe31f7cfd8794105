"""Trials -> rankings of configurations. What was not measured alike is never ranked together."""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from domaintune.config.tasks import declared_task, direction
from domaintune.runs.outcomes import Trial, shown
from domaintune.sweeps.comparing import FAILS, TIE, WORSE, Comparison, Measured, compare, draw_documents

Array = npt.NDArray[np.float64]
LIMIT = "trainer.limit_val_batches"
PER_BYTE = "val/bits_per_byte"
TOKENIZER = "tokenizer"  # in task.measured_with: a metric is of its tokens
# What a metric is computed from: the sums of two arrays of validation.npz, and a function of their ratio. Of others
# only the spread over seeds is known.
RATIOS: dict[str, tuple[str, str, Callable[[Array], Array]]] = {
    "val/loss": ("loss", "tokens", lambda ratio: ratio),
    "val/perplexity": ("loss", "tokens", lambda ratio: np.exp(np.minimum(ratio, 700.0))),
    PER_BYTE: ("loss", "bytes", lambda ratio: ratio / math.log(2)),
}


@dataclass(frozen=True)
class Row:
    """A configuration: the trials that differ in nothing but the seed.

    Attributes:
        settings: {key: value} of what varies.
        finished, others: its trials; those that are not finished count for nothing but are told.
        values: (S,) the metric of the finished ones.
        comparison: with the best of the ranking; None for the best itself.
    """

    settings: dict[str, Any]
    finished: tuple[Trial, ...]
    others: tuple[Trial, ...]
    values: Array
    comparison: Comparison | None = None

    @property
    def mean(self) -> float:
        return float(self.values.mean())

    @property
    def sd(self) -> float | None:
        """Over seeds; None where there is one."""
        return float(self.values.std(ddof=1)) if len(self.values) > 1 else None

    @property
    def fails(self) -> bool:
        """Whether some of its seeds failed, as by diverging: the mean of the others would flatter it."""
        return any(trial.state == "failed" for trial in self.others)


@dataclass(frozen=True)
class Ranking:
    """Configurations that were measured alike, the best first.

    Attributes:
        metric: what they are ranked by; `why` says so in words where it is not the task's own.
        data: the validation data's SHA-256.
        measured_by: {setting: value} that the metric depends on besides.
        judged_by_documents: whether differences are judged over documents too, or over seeds alone.
    """

    metric: str
    lower_is_better: bool
    rows: tuple[Row, ...]
    data: str
    documents: int | None
    why: str = ""
    judged_by_documents: bool = True
    measured_by: dict[str, Any] = field(default_factory=dict)

    @property
    def varied(self) -> list[str]:
        """The settings that differ between these configurations."""
        keys = self.rows[0].settings
        return [key for key in keys if len({repr(row.settings[key]) for row in self.rows}) > 1]

    def label(self, row: Row, without: str = "") -> str:
        """What tells a configuration from the others of its ranking, but for the setting `without`."""
        return ", ".join(f"{key}={shown(row.settings[key])}" for key in self.varied if key != without)

    def conclusion(self) -> str:
        """Whether there is a winner, in a sentence."""
        if len(self.rows) == 1:
            return "There is one configuration: nothing to compare."
        best, following = self.label(self.rows[0]), self.rows[1:]
        verdicts = [row.comparison.verdict for row in following if row.comparison]
        if FAILS in verdicts:
            verdicts = [verdict for verdict in verdicts if verdict != FAILS]
            if not verdicts:
                return f"{best} is the only one of which no seed failed."
        if all(verdict == WORSE for verdict in verdicts):
            return f"{best} is better than every other."
        ties = [self.label(row) for row in following if row.comparison and row.comparison.verdict == TIE]
        if ties:
            return f"No winner: {best} ties with {ties[0] if len(ties) == 1 else f'{len(ties)} others'}."
        open_ = next(verdict for verdict in verdicts if verdict != WORSE)
        return f"{best} came out best; whether by more than luck is {open_}."


def configurations(trials: Sequence[Trial], varied: Sequence[str]) -> list[tuple[dict[str, Any], list[Trial]]]:
    """(what varies, its trials) of each configuration; trials without a config have none."""
    groups: dict[str, tuple[dict[str, Any], list[Trial]]] = {}
    for trial in trials:
        if trial.settings:
            settings = {key: trial.settings.get(key) for key in varied}
            groups.setdefault(repr(settings), (settings, []))[1].append(trial)
    return list(groups.values())


def rank(trials: Sequence[Trial], varied: Sequence[str]) -> list[Ranking]:
    """One ranking for each task, monitored metric, validation data and way of measuring; trials that are not finished
    are in none.

    Of different tokenizers, a metric of tokens has a ranking for each, unless there is one of bytes for all.
    """
    alike: dict[tuple[Any, ...], list[Trial]] = defaultdict(list)
    for trial in trials:
        if trial.metrics:
            task, metric = (str(trial.settings.get(f"task.{key}")) for key in ("name", "monitor"))
            declared = declared_task(task)
            mode = direction(metric, declared) or str(trial.settings.get("task.mode"))
            needed = trial.settings.get(f"task.measured_with.{metric}", declared.measured_with.get(metric, ()))
            by = tuple((key, trial.settings.get(key)) for key in needed)
            alike[task, metric, mode, _data(trial), by].append(trial)
    rankings = []
    for (_, metric, mode, data, by), group in alike.items():
        by_tokenizer: dict[str, list[Trial]] = defaultdict(list)
        for trial in group:
            by_tokenizer[str(trial.result.get("validation", {}).get("tokenizer"))].append(trial)
        parts, why = [group], ""
        settings = {key: value for key, value in by if key != TOKENIZER}
        if TOKENIZER in dict(by) and len(by_tokenizer) > 1:
            why = f"their tokenizers differ, and {metric} is of their own tokens"
            if all(PER_BYTE in trial.metrics for trial in group):
                metric, mode, why = PER_BYTE, "min", f"ranked by {PER_BYTE}: {why}"
            else:
                parts, why = list(by_tokenizer.values()), f"a ranking for each tokenizer: {why}"
        if len(alike) > 1 and not why and any(trial.settings.get(LIMIT, 1) != 1 for trial in group):
            why = f"{LIMIT} counts batches: with others of data.batch_size it takes other documents"
        rankings += [_rank(part, trials, varied, metric, mode, data, why, settings) for part in parts]
    return sorted(rankings, key=lambda ranking: -len(ranking.rows))


def _data(trial: Trial) -> str:
    """What was validated on; of runs that recorded no more, the whole of their data."""
    kept = [trial.result.get(key, {}).get("sha256") for key in ("validation", "data")]
    return str(kept[0] or kept[1])


def _rank(
    group: Sequence[Trial],
    trials: Sequence[Trial],
    varied: Sequence[str],
    metric: str,
    mode: str,
    data: str,
    why: str,
    measured_by: dict[str, Any],
) -> Ranking:
    rows = [
        Row(
            settings,
            tuple(finished),
            tuple(trial for trial in members if not trial.metrics),
            np.array([trial.metrics[metric] for trial in finished], dtype=np.float64),
        )
        for settings, members in configurations(trials, varied)
        if (finished := [trial for trial in members if trial in group])
    ]
    lower = mode == "min"
    rows.sort(key=lambda row: (row.fails, row.mean if lower else -row.mean))
    measured, documents = _measure(rows, metric)
    sound = sum(not row.fails for row in rows) or len(rows)  # where all fail, they are compared as they are
    comparisons = [None, *compare(measured[0], measured[1:sound])]
    comparisons += [Comparison(row.mean - rows[0].mean, verdict=FAILS) for row in rows[sound:]]
    judged = tuple(replace(row, comparison=found) for row, found in zip(rows, comparisons, strict=True))
    by_documents = documents is not None
    return Ranking(metric, lower, judged, data, documents, why, by_documents, measured_by)


def _measure(rows: Sequence[Row], metric: str) -> tuple[list[Measured], int | None]:
    """What is compared, and over how many documents; None where that isn't known of all."""
    by_document = _by_document([trial for row in rows for trial in row.finished], metric)
    if by_document is None:
        return [Measured(row.values) for row in rows], None
    numerators, denominators = by_document
    drawn = draw_documents(numerators, denominators, RATIOS[metric][2])
    ends = np.cumsum([len(row.finished) for row in rows])[:-1]
    documents = numerators.shape[1]
    return [
        Measured(row.values, of_row, documents) for row, of_row in zip(rows, np.split(drawn, ends), strict=True)
    ], documents


def _by_document(trials: Sequence[Trial], metric: str) -> tuple[Array, Array] | None:
    """(N, D) numerators and denominators of the metric, documents in one order; None where a trial kept none."""
    if metric not in RATIOS:
        return None
    names, kept, hashes = RATIOS[metric], [], []
    for trial in trials:
        if not (file := trial.folder / "validation.npz").exists():
            return None
        with np.load(file, allow_pickle=False) as arrays:
            order = np.lexsort(arrays["hash"].T)
            hashes.append(arrays["hash"][order])
            kept.append([arrays[name][order].astype(np.float64) for name in names[:2]])
    if any(not np.array_equal(each, hashes[0]) for each in hashes):
        return None
    numerators, denominators = (np.stack(columns) for columns in zip(*kept, strict=True))
    return numerators, denominators
