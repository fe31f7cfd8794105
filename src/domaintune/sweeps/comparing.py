"""Whether one configuration is better than another, or only luckier: seeds and documents are both drawn by chance.

Every seed is measured on the same documents, so the two levels are crossed. The difference of two configurations has
the variance of its documents, by a paired bootstrap (Efron 1979; Dror et al., "The Hitchhiker's Guide to Testing
Statistical Significance in NLP", ACL 2018): documents are drawn anew, the same for all runs, so what makes a document
hard for everyone falls out. And it has the variance of each side's seeds (Bouthillier et al., "Accounting for Variance
in Machine Learning Benchmarks", MLSys 2021). They are added. That is the bootstrap of both levels (Owen, "The
Pigeonhole Bootstrap", Annals of Applied Statistics 2007), which counts what is particular to a document under a seed
more than once and so errs on the side of a tie, but with two changes, since three seeds are few. A bootstrap of n
seeds makes their variance too small by (n - 1) / n, and its quantiles are those of a normal distribution (Hesterberg,
"What Teachers Should Know About the Bootstrap", The American Statistician 2015); of three, one draw in nine is three
times the same. So the seeds' level is taken in closed form, unbiased, and the sum is judged by Student's t with the
degrees of freedom of Welch (1947) and Satterthwaite (1946), nearly 4 for three seeds against three.

Seeds are not paired: the same seed draws the same order of the data for both, which makes their figures alike if
anything, so this is on the safe side, and pairing would leave two degrees of freedom of four.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
LEVEL = 0.05  # the share of rankings of equals in which a difference is told
FEWEST_SEEDS = 3
DRAWS = 2000  # of the documents: the standard deviation of so many is known to 1.6 %
DRAWN_AT_ONCE = 4 << 20  # documents

WORSE, TIE = "worse", "tie"
UNDECIDABLE = "not decidable with fewer than three seeds"
FAILS = "some of its seeds failed"
NO_SPREAD = "not decidable where all seeds give the same figure"


@dataclass(frozen=True)
class Measured:
    """A configuration's runs, one a seed.

    Attributes:
        values: (S,) the metric of each.
        drawn: (S, R) what it would have been on each of R draws of the documents, the same draws for all
            configurations; None where the metric isn't known by document, and only seeds are judged.
        documents: how many there are.
    """

    values: Array
    drawn: Array | None = None
    documents: int = 0


@dataclass(frozen=True)
class Comparison:
    """How a configuration does against a reference.

    Attributes:
        difference: of the means over seeds, the reference's subtracted; in units of the metric.
        standard_error: of it; None with fewer than three seeds on either side.
        p: how often equals differ by as much, adjusted for the number of pairs; None likewise, and where figures differ
            but seeds don't, as of a few hundred labels: how much is chance can't be told then.
        verdict: one of the constants above.
    """

    difference: float
    standard_error: float | None = None
    p: float | None = None
    verdict: str = UNDECIDABLE


def draw_documents(numerators: Array, denominators: Array, metric: Callable[[Array], Array], seed: int = 0) -> Array:
    """(N, R) a metric that is a ratio of sums over documents, on draws of as many documents with replacement.

    Args:
        numerators, denominators: (N, D) of each run and document, as losses and tokens.
        metric: of the ratio.
        seed: of the draws; the same documents are drawn for all runs.
    """
    runs, documents = numerators.shape
    sums = np.concatenate([numerators, denominators]).T
    random, found = np.random.default_rng(seed), []
    together = max(1, DRAWN_AT_ONCE // documents)
    for first in range(0, DRAWS, together):
        draws = min(together, DRAWS - first)
        chosen = random.integers(documents, size=(draws, documents))
        chosen += documents * np.arange(draws)[:, None]
        times = np.bincount(chosen.ravel(), minlength=draws * documents).reshape(draws, documents)
        found.append(times @ sums)
    drawn = np.concatenate(found).T
    return metric(drawn[:runs] / drawn[runs:])


def compare(best: Measured, others: Sequence[Measured]) -> list[Comparison]:
    """Each of the others against the one with the best mean.

    Where all are equal, at most LEVEL of such rankings tell any difference: p-values are multiplied by the number of
    pairs (Bonferroni), not of comparisons, since the best was picked by the same figures that it is judged by.
    """
    found = [_compare(best, other) for other in others]
    tested = 1 + sum(p is not None for _, _, p in found)
    comparisons = []
    for difference, error, p in found:
        if p is None:
            comparisons.append(Comparison(difference, error, None, UNDECIDABLE if error is None else NO_SPREAD))
            continue
        p = min(1.0, p * tested * (tested - 1) / 2)
        comparisons.append(Comparison(difference, error, p, TIE if p > LEVEL else WORSE))
    return comparisons


def _compare(reference: Measured, other: Measured) -> tuple[float, float | None, float | None]:
    """Difference, its standard error and the p-value of this comparison alone."""
    difference = float(other.values.mean() - reference.values.mean())
    if min(len(reference.values), len(other.values)) < FEWEST_SEEDS:
        return difference, None, None
    parts = [(_variance(side.values) / len(side.values), len(side.values) - 1) for side in (reference, other)]
    if reference.drawn is not None and other.drawn is not None and reference.documents > 1:
        drawn = other.drawn.mean(0) - reference.drawn.mean(0)
        unbiased = reference.documents / (reference.documents - 1)
        parts.append((float(drawn.var(ddof=1)) * unbiased, reference.documents - 1))
    variance = sum(part for part, _ in parts)
    if variance == 0:
        return difference, 0.0, None if difference else 1.0
    freedom = variance**2 / sum(part**2 / own for part, own in parts)
    return difference, math.sqrt(variance), two_sided_p(difference / math.sqrt(variance), freedom)


def _variance(values: Array) -> float:
    """Of figures that are all the same it is 0, and not what rounding their mean leaves."""
    return float(values.var(ddof=1)) if np.ptp(values) else 0.0


def two_sided_p(t: float, freedom: float) -> float:
    """How often Student's t with so many degrees of freedom is farther from 0 than `t`."""
    from scipy.special import stdtr

    return float(2 * stdtr(freedom, -abs(t)))
