"""Pictures of a sweep, as SVG to stand in a page: no network, no script."""

import io
import math
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from domaintune.config.wording import escaped, shortened
from domaintune.runs.outcomes import Trial, shown
from domaintune.sweeps.ranking import Ranking, Row

LR = "optim.lr"
# Okabe and Ito's, told apart by everyone ("Color Universal Design", 2008).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MOST_CURVES = 12  # of validation: more can't be told apart
MOST_TICKS = 9
PAPER = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.0}  # under words that lines may cross
WIDE = 3.0  # where the largest value is more than so many times the smallest, an axis is logarithmic


@contextmanager
def _figure(width: float, height: float) -> Iterator[Any]:
    """matplotlib's axes; what the block draws on them is theirs alone."""
    import matplotlib
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        "svg.fonttype": "none",  # text stays text, in the page's font
        "svg.hashsalt": "domaintune",  # the same picture has the same bytes
        "font.family": "sans-serif",
        "font.size": 9.5,
        "text.parse_math": False,  # a $ in a setting is a $
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": "#8a8f98",
        "axes.labelcolor": "#30343b",
        "xtick.color": "#5b616b",
        "ytick.color": "#5b616b",
        "grid.color": "#e6e8ec",
        "legend.frameon": False,
    }
    with matplotlib.rc_context(style), warnings.catch_warnings():
        # The letters are drawn by the browser, in its fonts.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield Figure(figsize=(width, height), layout="constrained").subplots()


def _svg(axes: Any) -> str:
    out = io.StringIO()
    axes.figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    return text[text.index("<svg") :]


def _short(label: str) -> str:
    """A line of a legend."""
    return shortened(escaped(label), 60)


def learning_rates(ranking: Ranking, lost: Sequence[Trial]) -> str | None:
    """The metric against the learning rate, a line for each combination of what else varies; None where it doesn't.

    Args:
        lost: trials without a result, which stand above the others.
    """
    lines: dict[str, list[Row]] = defaultdict(list)
    for row in ranking.rows:
        lines[_short(ranking.label(row, without=LR))].append(row)
    rates = [rate for row in ranking.rows if (rate := row.settings.get(LR)) is not None]
    if len(rates) < len(ranking.rows) or len(set(rates)) < 2:
        return None
    with _figure(7.4, 3.6) as axes:
        for number, (label, rows) in enumerate(sorted(lines.items())):
            rows.sort(key=lambda row: row.settings[LR])
            colour, x = COLOURS[number % len(COLOURS)], [row.settings[LR] for row in rows]
            sd = [row.sd or 0.0 for row in rows]
            axes.errorbar(
                x, [row.mean for row in rows], sd, fmt="o-", color=colour, ms=5, lw=1.6, capsize=3, label=label or None
            )
            for row in rows:
                axes.plot([row.settings[LR]] * len(row.values), row.values, ".", color=colour, alpha=0.35, ms=6)
        axes.set(xscale="log", xlabel=LR, ylabel=_mean_of(ranking))
        gone = [rate for trial in lost if isinstance(rate := trial.settings.get(LR), float | int)]
        _mark(axes, sorted({*rates, *gone}))
        _vertical_scale(axes, [value for row in ranking.rows for value in row.values.tolist()])
        if gone:
            top = axes.get_ylim()[1]
            axes.plot(gone, [top] * len(gone), "x", color="#c0392b", ms=7, mew=1.8, clip_on=False, label="no result")
        if gone or len(lines) > 1:
            axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8.5)
        axes.grid(axis="y")
        return _svg(axes)


def _mark(axes: Any, rates: list[float]) -> None:
    """Room for the rates, and ticks where they are, as many as have room, as one would type them."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    room = math.log(rates[-1] / rates[0]) / MOST_TICKS
    marked = rates[:1]
    for rate in rates[1:]:
        if math.log(rate / marked[-1]) >= room:
            marked.append(rate)
    margin = (rates[-1] / rates[0]) ** 0.05
    axes.set_xlim(rates[0] / margin, rates[-1] * margin)
    axes.xaxis.set_major_locator(FixedLocator(marked))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:.3g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _mean_of(ranking: Ranking) -> str:
    several = any(len(row.values) > 1 for row in ranking.rows)
    return f"{ranking.metric}, mean ± sd over seeds" if several else ranking.metric


def _vertical_scale(axes: Any, values: Sequence[float]) -> None:
    from matplotlib.ticker import MaxNLocator, NullFormatter, ScalarFormatter

    if min(values) > 0 and max(values) / min(values) > WIDE:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(ScalarFormatter())
        axes.yaxis.set_minor_formatter(NullFormatter() if max(values) / min(values) > 10 else ScalarFormatter())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(6))


def parallel_coordinates(ranking: Ranking) -> str | None:
    """A line for each configuration through what was set, to the metric; None where fewer than two settings vary."""
    keys = ranking.varied
    if len(keys) < 2:
        return None
    from matplotlib import colormaps

    scales = [_scale([row.settings[key] for row in ranking.rows]) for key in keys]
    scales.append(_scale([row.mean for row in ranking.rows]))
    with _figure(7.4, 3.4) as axes:
        axes.axis("off")
        places, last = range(len(scales)), len(scales) - 1
        for row in reversed(ranking.rows):
            values = [*(row.settings[key] for key in keys), row.mean]
            heights = [place(value) for (place, _), value in zip(scales, values, strict=True)]
            good = 1 - heights[-1] if ranking.lower_is_better else heights[-1]
            x, y = _smooth(heights)
            axes.plot(x, y, color=colormaps["viridis"](0.85 * (1 - good)), lw=1.0 + 1.4 * good, alpha=0.85)
        for axis, (name, (_, ticks)) in zip(places, zip([*keys, ranking.metric], scales, strict=True), strict=True):
            axes.plot([axis, axis], [0, 1], color="#5b616b", lw=1)
            axes.text(axis, 1.09, name, ha="center", weight="bold", color="#30343b")
            side, align = (0.03, "left") if axis == last else (-0.03, "right")
            for height, text in ticks:
                axes.plot([axis - 0.012, axis + 0.012], [height, height], color="#5b616b", lw=1)
                axes.text(axis + side, height, text, ha=align, va="center", fontsize=8.5, color="#30343b", bbox=PAPER)
        axes.set(xlim=(-0.45, last + 0.35), ylim=(-0.06, 1.16))
        return _svg(axes)


def _smooth(heights: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """A curve through heights at 0, 1, 2, ..., level at each: lines that cross there can be followed."""
    x = np.linspace(0, len(heights) - 1, 24 * (len(heights) - 1) + 1)
    left = np.minimum(x.astype(int), len(heights) - 2)
    share = x - left
    share = share * share * (3 - 2 * share)
    heights_ = np.asarray(heights)
    return x, heights_[left] * (1 - share) + heights_[left + 1] * share


Scale = tuple[Callable[[Any], float], list[tuple[float, str]]]


def _scale(values: Sequence[Any]) -> Scale:
    """Where on an axis from 0 to 1 a value stands, and its ticks: numbers by size, anything else evenly."""
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    distinct = sorted(set(values)) if numbers else sorted({shown(value) for value in values})
    if not numbers:
        step = 1 / max(1, len(distinct) - 1)
        return lambda value: distinct.index(shown(value)) * step, [
            (number * step, shortened(escaped(text), 23)) for number, text in enumerate(distinct)
        ]
    low, high = float(distinct[0]), float(distinct[-1])
    of: Callable[[float], float] = math.log if low > 0 and high / low > WIDE else float

    def place(value: Any) -> float:
        return (of(value) - of(low)) / (of(high) - of(low)) if high > low else 0.5

    marked: list[Any] = []
    for value in (low, high, *distinct):  # the ends first, then what has room
        if all(abs(place(value) - place(other)) > 0.08 for other in marked):
            marked.append(value)
    return place, [(place(value), f"{value:.4g}") for value in marked]


def validation_curves(ranking: Ranking, metric: str) -> str | None:
    """The metric over steps, of the best configurations' first trials; None where no curve was kept."""
    curves = [(row, points) for row in ranking.rows[:MOST_CURVES] if len(points := _curve(row.finished[0], metric)) > 1]
    if not curves:
        return None
    with _figure(7.4, 3.6) as axes:
        for number, (row, points) in enumerate(curves):
            steps, values = zip(*points, strict=True)
            style = "-" if number < len(COLOURS) else "--"
            axes.plot(
                steps,
                values,
                style,
                color=COLOURS[number % len(COLOURS)],
                lw=1.5,
                label=_short(ranking.label(row)) or None,
            )
        axes.set(xlabel="optimizer steps", ylabel=metric)
        _vertical_scale(axes, [value for _, points in curves for _, value in points])
        axes.grid(axis="y")
        if ranking.varied:
            axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8.5)
        return _svg(axes)


def _curve(trial: Trial, metric: str) -> list[tuple[int, float]]:
    """(step, value) as TensorBoard has them."""
    points = []
    for folder in (trial.folder / "tensorboard", trial.folder):  # where earlier versions had them, and where they are
        if next(folder.glob("events.out.tfevents.*"), None) is None:
            continue
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
        found = events.Scalars(metric) if metric in events.Tags()["scalars"] else []
        points += [(event.step, event.value) for event in found if math.isfinite(event.value)]
    return points
