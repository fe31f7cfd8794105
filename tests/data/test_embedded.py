import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from domaintune.data import embedded
from domaintune.data.embedded import embedded_corpus
from domaintune.tasks.metrics import entities_of


def test_it_is_two_megabytes_of_text_in_thousands_of_documents(corpus_cache: Path) -> None:
    rows = [json.loads(line) for line in embedded_corpus(str(corpus_cache)).read_text().splitlines()]
    assert len(rows) > 3000
    assert 1_500_000 < sum(len(row["text"].encode()) for row in rows) < 4_000_000


def test_each_row_says_where_its_text_stands(corpus_cache: Path) -> None:
    rows = [json.loads(line) for line in embedded_corpus(str(corpus_cache)).read_text().splitlines()]
    by_source = {row["source"]: row["text"] for row in rows}
    assert by_source["json.dumps"].startswith("json.dumps(obj, *, skipkeys=False")
    assert any(source.startswith("topic ") for source in by_source)


def test_the_second_call_reads_the_file_of_the_first(corpus_cache: Path) -> None:
    file = embedded_corpus(str(corpus_cache))
    os.utime(file, (1, 1))
    assert embedded_corpus(str(corpus_cache)) == file
    assert file.stat().st_mtime == 1
    assert list(corpus_cache.iterdir()) == [file]


def test_no_entity_is_what_stands_between_two_quotes(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in embedded_corpus(str(tmp_path), "entities").read_text().splitlines()]
    assert len(rows) > 1000
    assert not any('"' in row["tokens"] for row in rows)
    found = {
        (kind, " ".join(row["tokens"][first : last + 1]))
        for row in rows
        for kind, first, last in entities_of(row["tags"])
    }
    assert ("keyword", "in") in found
    assert found.isdisjoint({("other", "in"), ("other", "such as"), ("other", ",")})


@pytest.mark.parametrize(
    ("sentence", "kept"),
    [
        ('The names "a" and "b.c" are here.', True),
        (f'A long "{"x" * 41}" and "b" are here.', False),
        ('end of a quote" and "b" are here.', False),
        (f'A long "{"x" * 41}" and "{"y" * 41}" are here.', False),
        ('end of a quote" and "the beginning of another', False),
    ],
)
def test_of_a_quote_that_is_long_or_cut_the_sentence_is_left_out(sentence: str, kept: bool) -> None:
    assert embedded._quotes_names(sentence) is kept


def test_an_interrupted_writing_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> Iterator[tuple[str, str]]:
        yield "source", "text"
        raise KeyboardInterrupt

    monkeypatch.setattr(embedded, "_docstrings", interrupted)
    with pytest.raises(KeyboardInterrupt):
        embedded_corpus(str(tmp_path))
    assert list(tmp_path.iterdir()) == []
