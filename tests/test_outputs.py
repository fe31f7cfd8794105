import json
from pathlib import Path
from typing import Any

import pytest

from domaintune.config import UsageError
from domaintune.outputs import Output


def output(folder: Path, fresh: bool = False, **made_from: Any) -> Output:
    return Output(folder / "out.jsonl", made_from or {"model": "a"}, fresh)


def rows(first: int, end: int) -> list[dict[str, Any]]:
    return [{"number": number, "text": "é\n"} for number in range(first, end)]


def written(folder: Path) -> list[Any]:
    return [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]


def test_rows_are_lines(tmp_path: Path) -> None:
    out = output(tmp_path / "new")
    assert out.begin(2) == 0
    out.add(rows(0, 2))
    out.add(rows(2, 3))
    assert written(tmp_path / "new") == rows(0, 3)


@pytest.mark.parametrize(("lines", "kept"), [(0, 0), (1, 0), (2, 2), (3, 2), (4, 4)])
def test_whole_groups_of_whole_lines_are_kept(tmp_path: Path, lines: int, kept: int) -> None:
    out = output(tmp_path)
    out.begin(2)
    out.add(rows(0, lines))
    with (tmp_path / "out.jsonl").open("a") as file:
        file.write('{"number": 4, "te')  # a process was killed here
    assert output(tmp_path).begin(2) == kept
    assert written(tmp_path) == rows(0, kept)


def test_another_models_output_is_refused_and_fresh_replaces_it(tmp_path: Path) -> None:
    out = output(tmp_path, model="a", input=["x"])
    out.begin(2)
    out.add(rows(0, 2))
    with pytest.raises(UsageError, match="was made with another model, another input"):
        output(tmp_path, model="b", input=["y"]).begin(2)
    assert written(tmp_path) == rows(0, 2)
    assert output(tmp_path, fresh=True, model="b", input=["y"]).begin(2) == 0
    assert output(tmp_path, model="b", input=["y"]).begin(2) == 0


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").write_text("a letter\n")
    with pytest.raises(UsageError, match="not made by this program"):
        output(tmp_path).begin(2)


def test_where_nothing_can_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="can't be written"):
        output(tmp_path / "file").begin(2)
