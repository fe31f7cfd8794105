import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from domaintune.data import embedded
from domaintune.data.embedded import embedded_corpus


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


def test_an_interrupted_writing_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> Iterator[tuple[str, str]]:
        yield "source", "text"
        raise KeyboardInterrupt

    monkeypatch.setattr(embedded, "_docstrings", interrupted)
    with pytest.raises(KeyboardInterrupt):
        embedded_corpus(str(tmp_path))
    assert list(tmp_path.iterdir()) == []
