"""A format of a person's own is two files: a leaf that names it, and a module with its class."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import folder_of, result_of

LEAF = """
# @package _global_
defaults: [domain, _self_]
data:
  format: poems.Poem
  embedded: null
  columns: {title: title, lines: verses}
  batching: padded
task:
  learns_from: [poems.Poem]
"""
MODULE = '''
import numpy as np

from domaintune.data.cells import list_in, text_in
from domaintune.data.encoder import CONTEXT, Encoded
from domaintune.data.fields import Format
from domaintune.data.formats.text import TEXT


class Poem(Format):
    """A title, and the lines that are learnt behind it."""

    needs_columns = True

    def parse(self, row, fields):
        title, lines = fields.column("title"), list_in(row[fields.column("lines")])
        return {"title": text_in(row, title, "no title"), "lines": LINES.join(lines)}

    def given(self, record):
        return record["title"]

    def asking(self, config, text_column):
        return TEXT, text_column or config.columns["title"]

    def encode_documents(self, records, first, tokenizer, encoder):
        parts = []
        for record in records:
            title, lines = (encoder.encode([record[part]])[:2] for part in ("title", "lines"))
            end = [tokenizer.eos_token_id], [0]
            parts += [(title[0], np.full_like(title[1], CONTEXT)), lines, end]
        ids, counts = (np.concatenate(each).astype(np.int32) for each in zip(*parts))
        lengths = np.array([sum(len(ids) for ids, _ in parts[n : n + 3]) for n in range(0, len(parts), 3)])
        return Encoded(ids, counts, lengths)


LINES = " / "
'''


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the two files, and poems."""
    folder = tmp_path_factory.mktemp("poems")
    (folder / "data").mkdir()
    (folder / "data" / "poems.yaml").write_text(LEAF)
    (folder / "poems.py").write_text(MODULE)
    rows = [{"title": f"Song {n}", "verses": ["the sun is up", f"and so are {n} birds"]} for n in range(60)]
    (folder / "poems.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def test_an_own_format_is_read_learnt_and_asked(
    run_with_own: Callable[..., str], mine: Path, command: Any, small: list[str], tmp_path: Path
) -> None:
    rest = [each for each in small if each.split("=")[0].startswith(("model", "trainer", "paths"))]
    own = ["--config-dir", str(mine), "data=poems", f"data.path={mine / 'poems.jsonl'}", "data.block_size=64"]
    run_with_own("train.py", "name=poems", *own, *rest)
    account = result_of(folder_of(command, "poems"))["data"]["train"]
    assert 0 < account["predicted_tokens"] < account["tokens"]
    assert "perplexity" in run_with_own("scripts/evaluate.py", "run=poems")
    asked = tmp_path / "asked.jsonl"
    run_with_own(
        "scripts/predict.py", "run=poems", f"input={mine / 'poems.jsonl'}", f"output={asked}", "max_new_tokens=3"
    )
    assert len(asked.read_text().splitlines()) == 60
    (mine / "poems.py").write_text(MODULE.replace('" / "', '" // "'))
    run_with_own("train.py", "name=changed", *own, *rest)
    tokens = [result_of(folder_of(command, name))["data"]["sha256"] for name in ("poems", "changed")]
    assert tokens[0] != tokens[1], "what the module reads now is another text"


@pytest.mark.parametrize(
    ("format", "told"),
    [
        ("poem", "data.format=poem: must be one of text, instructions"),
        ("nowhere.Poem", "data.format=nowhere.Poem: there is no module nowhere"),
        ("poems.Poet", "data.format=poems.Poet: module 'poems' has no attribute 'Poet'"),
        ("json.JSONDecoder", "data.format=json.JSONDecoder: it is no domaintune.data.fields.Format"),
    ],
)
def test_a_format_that_is_none_is_told(run_with_own: Callable[..., str], mine: Path, format: str, told: str) -> None:
    own = ["--config-dir", str(mine), "data=poems", f"data.path={mine / 'poems.jsonl'}"]
    assert told in run_with_own("train.py", *own, f"data.format={format}", f"task.learns_from=[{format}]", code=2)
