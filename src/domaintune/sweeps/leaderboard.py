"""What a sweep found: a table to print, leaderboard.csv and report.html. Right at any time, also while it runs."""

import csv
import io
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from domaintune.config.programs import program
from domaintune.config.wording import escaped_lines, for_shell
from domaintune.files.writing import write_whole
from domaintune.runs.outcomes import Sweep, Trial, read_sweep, shown, varied_keys
from domaintune.sweeps.page import page
from domaintune.sweeps.ranking import Ranking, Row, rank

CSV, REPORT = "leaderboard.csv", "report.html"


@dataclass(frozen=True)
class Leaderboard:
    """A sweep with its rankings; several where trials were not measured alike."""

    sweep: Sweep
    varied: tuple[str, ...]
    rankings: tuple[Ranking, ...]

    @property
    def unfinished(self) -> list[Trial]:
        """The trials that ended without a result."""
        return [trial for trial in self.sweep.trials if trial.state in ("failed", "interrupted")]


def read(folder: Path) -> Leaderboard:
    """The leaderboard of a sweep's folder, with sweep.json or without.

    Raises:
        UsageError: there is no trial.
    """
    sweep = read_sweep(folder)
    varied = varied_keys(sweep.trials)
    return Leaderboard(sweep, tuple(varied), tuple(rank(sweep.trials, varied)))


def write(folder: Path) -> Leaderboard:
    """Writes leaderboard.csv and report.html into a sweep's folder, each whole or not at all; prints nothing.

    Raises:
        UsageError: there is no trial.
    """
    board = read(folder)
    write_whole(folder / CSV, to_csv(board))
    write_whole(folder / REPORT, page(board.sweep, board.varied, board.rankings))
    return board


def tell(folder: Path, failures: bool = True) -> None:
    """Writes both files of a sweep, prints its table, and says where they are. Raises as `write`.

    Args:
        failures: whether to say why trials failed, where nobody has said so before.
    """
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    print_board(write(folder), console, failures)
    console.print(Text(f"{folder / CSV}, {folder / REPORT}"), soft_wrap=True)


def print_board(board: Leaderboard, console: Console, failures: bool = True) -> None:
    """Rankings with their verdicts and what to do with the best trial, then what failed and why."""
    for number, ranking in enumerate(board.rankings, start=1):
        if len(board.rankings) > 1:
            console.print(_text(f"ranking {number}: {apart(ranking)}", style="bold"))
        table = Table()
        for header in ("", *board.varied, ranking.metric, "seeds", "gap to best", "p", "verdict"):
            table.add_column(_text(header))
        for place, row in enumerate(ranking.rows, start=1):
            values = (shown(row.settings[key]) for key in board.varied)
            table.add_row(str(place), *map(_text, values), figure(row), seeds(row), *judged(row))
        console.print(table)
        console.print(_text(ranking.conclusion()))
        if ranking.why:
            console.print(_text(ranking.why))
        if ranking.rows and ranking.rows[0].finished:
            best = best_trial(ranking)
            measure = f"{program('evaluate')} {for_shell(f'run={best.folder}')}"
            start = " ".join(map(for_shell, (*what_was_learnt(best), f"model.checkpoint=run:{best.folder}")))
            told = f"the best trial: {measure} measures it, {program('train')} {start} starts from it"
            console.print(_text(told), soft_wrap=True)
    if not board.rankings:
        console.print("no trial has finished yet")
    for trial in board.unfinished if failures else ():
        console.print(_text(f"{trial.state}  {trial.name}: {trial.why or 'stopped'}", style="red"))
    if waiting := board.sweep.count("pending", "running"):
        console.print(f"{waiting} of {len(board.sweep.trials)} trials have not ended")


def best_trial(ranking: Ranking) -> Trial:
    """Of the first configuration the trial with the best metric."""
    values = ranking.rows[0].values
    return ranking.rows[0].finished[int(values.argmin() if ranking.lower_is_better else values.argmax())]


def what_was_learnt(trial: Trial) -> list[str]:
    """What was typed of its task and its data."""
    typed = shlex.split(trial.result["command"])[2:]
    return [each for each in typed if each.partition("=")[0].split(".")[0] in ("data", "task", "experiment")]


def _text(text: str, style: str = "") -> Text:
    """A name as it is: neither the signs of rich's markup nor those of a terminal mean anything in it."""
    return Text(escaped_lines(text), style=style)


def apart(ranking: Ranking) -> str:
    """What a ranking is of, where there are several."""
    documents = f"{ranking.documents:,} validation documents" if ranking.documents else "validation data"
    by = "".join(f", {key}={shown(value)}" for key, value in ranking.measured_by.items())
    return f"{ranking.metric} on {documents} of SHA-256 {ranking.data[:12]}{by}; not to be compared with the others"


def figure(row: Row) -> str:
    """The mean over seeds, with as many digits as the spread gives sense to."""
    if row.sd is None:
        return f"{row.mean:.5g}"
    return f"{row.mean:.5g} ± {row.sd:.2g}"


def seeds(row: Row) -> str:
    """How many finished, of how many."""
    total = len(row.finished) + len(row.others)
    return str(total) if not row.others else f"{len(row.finished)} of {total}"


def judged(row: Row) -> tuple[str, str, str]:
    """Difference, p-value and verdict in words."""
    if row.comparison is None:
        return "", "", "best"
    p = row.comparison.p
    return f"{row.comparison.difference:+.2g}", "" if p is None else f"{p:.2g}", row.comparison.verdict


def to_csv(board: Leaderboard) -> str:
    """A line for each configuration of each ranking, then one for each trial that has no result."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    columns = "metric mean sd seeds difference standard_error p verdict state why trials".split()
    writer.writerow(["ranking", "rank", *board.varied, *columns])
    for number, ranking in enumerate(board.rankings, start=1):
        for place, row in enumerate(ranking.rows, start=1):
            compared = row.comparison
            writer.writerow(
                [number, place, *(shown(row.settings[key]) for key in board.varied)]
                + [ranking.metric, repr(row.mean), "" if row.sd is None else repr(row.sd), len(row.finished)]
                + ([compared.difference, compared.standard_error, compared.p] if compared else ["", "", ""])
                + [compared.verdict if compared else "best", "finished", ""]
                + [" ".join(trial.name for trial in row.finished)]
            )
    for trial in board.sweep.trials:
        if not trial.metrics:
            values = [shown(trial.settings.get(key)) if trial.settings else "" for key in board.varied]
            writer.writerow(["", "", *values, *[""] * 8, trial.state, trial.why or "", trial.name])
    return out.getvalue()
