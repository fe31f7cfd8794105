import csv
import html
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import sweeps_on_disk as made
from rich.console import Console

from domaintune.sweeps.leaderboard import print_board, read, write

EVIL = "<script>alert('x')</script>&$\\frac"


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    folder = tmp_path / "rates"
    made.rates(folder, {1e-3: 3.0, 1e-2: 2.5, 1e-1: 4.0}, **{"model.checkpoint": "a"})
    made.rates(folder, {1e-3: 2.9, 1e-2: 2.5, 1e-1: 4.5}, **{"model.checkpoint": EVIL})
    lost = made.trial(folder, {"optim.lr": 1.0}, None, error="RunError: step 3: the loss is nan")
    (lost / "output.log").write_text(f"model loaded\n{EVIL}\nerror: the loss is nan\n")
    return folder


def rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((folder / "leaderboard.csv").read_text())))


def printed(folder: Path) -> str:
    console = Console(file=io.StringIO(), width=200)
    print_board(read(folder), console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_csv_has_a_line_for_each_configuration_and_one_for_each_failure(sweep: Path) -> None:
    write(sweep)
    found = rows(sweep)
    measured = "metric mean sd seeds difference standard_error p verdict state why trials".split()
    assert list(found[0]) == ["ranking", "rank", "model.checkpoint", "optim.lr", *measured]
    assert [row["rank"] for row in found] == ["1", "2", "3", "4", "5", "6", ""]
    assert {row["optim.lr"] for row in found[:2]} == {"0.01"}
    assert [row["verdict"] for row in found] == ["best", "tie", "worse", "worse", "worse", "worse", ""]
    assert float(found[0]["mean"]) == pytest.approx(2.5, abs=0.01)
    assert found[0]["seeds"] == "3"
    assert len(found[0]["trials"].split()) == 3
    assert (found[-1]["state"], found[-1]["why"]) == ("failed", "RunError: step 3: the loss is nan")


def test_what_is_printed_has_the_verdicts_and_why_trials_failed(sweep: Path) -> None:
    text = printed(sweep)
    for words in ("val/loss", "±", "tie", "worse", "No winner", "optim.lr=1.0: RunError: step 3"):
        assert words in text


def test_two_validation_sets_are_two_tables_said_in_words(sweep: Path) -> None:
    made.trial(sweep, {"data.path": "other.txt"}, made.documents(1.0, seed=0, data=1))
    assert printed(sweep).count("not to be compared with the others") == 2
    write(sweep)
    assert {row["ranking"] for row in rows(sweep)} == {"1", "2", ""}
    assert "were not measured" not in (page := (sweep / "report.html").read_text())
    assert "Not all trials were measured on the same validation data" in page


class Tags(HTMLParser):
    """What a browser would see: elements, where they point, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.targets: list[str] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.targets += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "action")]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_report_is_one_page_that_asks_for_nothing_and_runs_nothing(sweep: Path) -> None:
    write(sweep)
    page = (sweep / "report.html").read_text()
    tags = Tags(page)
    assert "script" not in tags.names
    assert all(target.startswith("#") for target in tags.targets)
    assert not re.search(r"url\((?!#)|@import|\son\w+=", page)


def test_what_a_person_or_a_program_wrote_is_escaped(sweep: Path) -> None:
    write(sweep)
    page = (sweep / "report.html").read_text()
    assert "<script" not in page
    assert html.escape(EVIL, quote=False).split("(")[0] in page
    assert sum(EVIL in text for text in Tags(page).texts) >= 3, (
        "in the table, the pictures and the last lines, as it was"
    )


def test_the_report_tells_ranking_pictures_failures_command_and_data(sweep: Path) -> None:
    side = {"documents": 40, "tokens": 4000}
    folder = made.trial(
        sweep,
        {"optim.lr": 0.02},
        made.documents(2.6, 5),
        data={"sha256": "ab12", "train": side, "val": side, "test": side},
    )
    assert folder.exists()
    write(sweep)
    page = (sweep / "report.html").read_text()
    text = " ".join(" ".join(Tags(page).texts).split())
    for words in (
        "19 of 20 trials finished, 1 without a result",
        "python train.py -m",
        "No winner",
        "error: the loss is nan",
        "notes.txt: train 40 documents, 4,000 tokens",
        "Learning rate",
        "What was varied",
    ):
        assert words in text, words
    assert page.count("<svg") == 2, "no curve was kept"


def test_it_can_be_looked_at_before_anything_has_finished(tmp_path: Path) -> None:
    line = {"number": 0, "overrides": ["optim.lr=1"], "state": "pending", "exit": None, "why": None, "seconds": 0.0}
    record = {"command": "typed", "started": "then", "ended": None, "status": "running", "trials": {"optim.lr=1": line}}
    (tmp_path / "sweep.json").write_text(json.dumps(record))
    write(tmp_path)
    assert "No trial has finished yet" in (tmp_path / "report.html").read_text()
    assert "1 of 1 trials have not ended" in printed(tmp_path)
