"""report.html: a sweep on one page that needs nothing else."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from domaintune.runs.outcomes import Sweep, shown
from domaintune.sweeps.charts import learning_rates, parallel_coordinates, validation_curves
from domaintune.sweeps.ranking import Ranking

TEMPLATE = Path(__file__).with_name("page.html")


def page(sweep: Sweep, varied: Sequence[str], rankings: Sequence[Ranking]) -> str:
    """The report as HTML; whatever a person typed or a program printed is escaped."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["shown"] = shown
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        sweep=sweep,
        varied=varied,
        sections=[_section(ranking, sweep) for ranking in rankings],
        lost=[trial for trial in sweep.trials if trial.state in ("failed", "interrupted")],
        finished=sweep.count("finished"),
        waiting=sweep.count("pending", "running"),
        data=_data(sweep),
    )


def _section(ranking: Ranking, sweep: Sweep) -> dict[str, Any]:
    """A ranking with its pictures, which are made here and so need no escaping."""
    from markupsafe import Markup

    lost = [trial for trial in sweep.trials if trial.state == "failed"]
    pictures = {
        "Learning rate": learning_rates(ranking, lost),
        "What was varied": parallel_coordinates(ranking),
        "Validation while training": validation_curves(ranking, ranking.metric),
    }
    return {
        "ranking": ranking,
        "pictures": [(title, Markup(svg)) for title, svg in pictures.items() if svg],
    }


def _data(sweep: Sweep) -> list[tuple[str, list[str]]]:
    """What was trained and validated on: one line for each data set, and how many trials had it."""
    lines: dict[str, list[str]] = {}
    for trial in sweep.trials:
        data = trial.result.get("data")
        if not data or "val" not in data:
            continue
        path = trial.settings.get("data.path")
        sides = ", ".join(
            f"{side} {data[side]['documents']:,} documents, {data[side]['tokens']:,} tokens"
            for side in ("train", "val", "test")
            if data[side]["documents"]
        )
        named = "the embedded text" if path is None else shown(path)
        lines.setdefault(f"{named}: {sides}; SHA-256 {str(data.get('sha256'))[:16]}", []).append(trial.name)
    return list(lines.items())
