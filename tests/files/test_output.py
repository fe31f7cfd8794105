import contextlib
import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from domaintune.errors import UsageError
from domaintune.files import output as outputs
from domaintune.files.output import Output, refuse_output


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


def test_nothing_is_taken_from_an_output_that_is_complete(tmp_path: Path) -> None:
    """Of which the last group of rows is not whole."""
    out = output(tmp_path)
    out.begin(2)
    out.add(rows(0, 3))
    assert output(tmp_path).begin(2) == 2, "it may be of a process that was killed"
    out.add(rows(2, 3))
    out.finish()
    before = (tmp_path / "out.jsonl").stat()
    assert output(tmp_path).begin(2) == 3
    assert (tmp_path / "out.jsonl").stat() == before
    assert output(tmp_path, fresh=True).begin(2) == 0


def test_another_models_output_is_refused_and_fresh_replaces_it(tmp_path: Path) -> None:
    out = output(tmp_path, model="a", input=["x"])
    out.begin(2)
    out.add(rows(0, 2))
    with pytest.raises(UsageError, match="was made with another model, another input"):
        output(tmp_path, model="b", input=["y"]).begin(2)
    assert written(tmp_path) == rows(0, 2)
    assert output(tmp_path, fresh=True, model="b", input=["y"]).begin(2) == 0
    assert output(tmp_path, model="b", input=["y"]).begin(2) == 0


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
def test_rows_never_stand_beside_what_others_were_made_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Wherever a process that starts over is killed."""

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    out = Output(tmp_path / name, {"model": "a"}, False)
    out.begin(2)
    out.add(rows(0, 2))
    out.finish()
    over = Output(tmp_path / name, {"model": "b"}, True)
    for function in ("flush", "write_whole"):
        with monkeypatch.context() as patched, contextlib.suppress(KeyboardInterrupt):
            patched.setattr(outputs, function, killed)
            over.begin(2)
        assert json.loads(over.beside.read_text())["model"] == "a"
        assert not over.lines.read_bytes()
    assert over.begin(2) == 0
    assert json.loads(over.beside.read_text()) == {"model": "b"}
    assert [each for each in (over.file, over.lines) if each.exists() and each.read_bytes()] == []


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "big").mkdir()
    (tmp_path / "out.jsonl").symlink_to(tmp_path / "big" / "rows.jsonl")
    out = output(tmp_path, fresh=True)
    out.begin(2)
    out.add(rows(0, 2))
    assert (tmp_path / "out.jsonl").is_symlink()
    assert (tmp_path / "big" / "rows.jsonl").read_text().count("number") == 2


def test_a_name_that_leaves_no_room_for_others_beside_it_is_told(tmp_path: Path) -> None:
    with (
        pytest.raises(UsageError, match="can't be written"),
        Output(tmp_path / f"{'x' * 245}.jsonl", {"model": "a"}, False) as out,
    ):
        out.begin(2)


def test_one_process_at_a_time_writes(tmp_path: Path) -> None:
    hold = """
import sys
from pathlib import Path
from domaintune.files.output import Output
with Output(Path(sys.argv[1]), {"model": "a"}, False):
    print("taken", flush=True)
    sys.stdin.read()
"""
    file = tmp_path / "out.jsonl"
    command = [sys.executable, "-c", hold, str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "taken\n"
        with pytest.raises(UsageError, match=f"out.jsonl is in use by process {other.pid}"):
            output(tmp_path).begin(2)
        other.kill()
        other.communicate()
    with output(tmp_path) as mine:
        assert mine.begin(2) == 0
    assert sorted(each.name for each in tmp_path.iterdir()) == ["out.jsonl", "out.jsonl.made_from.json"]


def test_a_table_that_lost_rows_is_not_written_over(tmp_path: Path) -> None:
    file = tmp_path / "out.csv"
    for kept in (0, 3):
        out = Output(file, {"model": "a"}, fresh=False)
        assert out.begin(1) == kept
        if kept == 0:
            out.add(rows(0, 3))
        out.finish()
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:1]))
    with pytest.raises(UsageError, match="0 rows are there, and others were written"):
        Output(file, {"model": "a"}, fresh=False).begin(1)
    assert Output(file, {"model": "a"}, fresh=True).begin(1) == 0


@pytest.mark.parametrize("fresh", [False, True])
def test_a_file_of_something_else_is_refused(tmp_path: Path, fresh: bool) -> None:
    (tmp_path / "out.jsonl").write_text("a letter\n")
    with pytest.raises(UsageError, match="not made by this program; take another output") as caught:
        output(tmp_path, fresh).begin(2)
    assert "fresh" not in str(caught.value)
    assert (tmp_path / "out.jsonl").read_text() == "a letter\n"


def test_an_empty_file_is_taken(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").touch()
    assert output(tmp_path).begin(2) == 0
    assert output(tmp_path, model="b").file.exists()


def test_checking_changes_nothing(tmp_path: Path) -> None:
    out = output(tmp_path / "new", fresh=True)
    out.check()
    assert list(tmp_path.iterdir()) == []
    out.begin(2)
    out.add(rows(0, 2))
    output(tmp_path / "new", fresh=True, model="b").check()
    assert written(tmp_path / "new") == rows(0, 2)


def test_a_damaged_file_beside_is_told(tmp_path: Path) -> None:
    output(tmp_path).begin(2)
    (tmp_path / "out.jsonl.made_from.json").write_text("{")
    with pytest.raises(UsageError, match=r"made_from\.json is damaged; take another output"):
        output(tmp_path).begin(2)


def test_a_folder_is_no_output(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").mkdir()
    with pytest.raises(UsageError, match=r"is no file; take a file in it, as output=.*out\.jsonl/predictions\.jsonl"):
        output(tmp_path).check()


def linked(folder: Path, name: str) -> list[Path]:
    """A file by several names."""
    (folder / name).write_text("text\n")
    (folder / "sub").mkdir()
    (folder / "symbolic.jsonl").symlink_to(folder / name)
    (folder / "hard.jsonl").hardlink_to(folder / name)
    return [folder / name, folder / "symbolic.jsonl", folder / "hard.jsonl", folder / "sub" / ".." / name]


def test_an_input_is_no_output_by_whatever_name(tmp_path: Path) -> None:
    for file in linked(tmp_path, "a.csv"):
        with pytest.raises(UsageError, match=r"is one of the inputs \(.*a\.csv\); take another output$"):
            refuse_output(file, [str(tmp_path / "b.csv"), str(tmp_path / "a.csv")])


def test_what_lies_beside_an_output_is_no_input(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl.made_from.json").write_text("[]")
    with pytest.raises(UsageError, match=r"out\.jsonl\.made_from\.json is one of the inputs"):
        refuse_output(tmp_path / "out.jsonl", [str(tmp_path / "out.jsonl.made_from.json")])


@pytest.mark.parametrize(
    ("name", "better"),
    [
        ("a.csv", None),
        ("a.csv.rows.jsonl", "a.csv.jsonl"),
        ("a.TSV", "a.jsonl"),
        ("a.b.parquet", "a.b.jsonl"),
        ("a.jsonl.gz", "a.jsonl"),
        ("a.jsonl", None),
        ("a.json", None),
        ("a.txt", None),
        ("a", None),
    ],
)
def test_rows_of_json_are_not_called_otherwise(tmp_path: Path, name: str, better: str | None) -> None:
    if better is None:
        refuse_output(tmp_path / name, [])
    else:
        with pytest.raises(UsageError, match=f"rows are JSON lines .*; take output={tmp_path / better}$"):
            refuse_output(tmp_path / name, [])


def test_where_nothing_can_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="can't be written"):
        output(tmp_path / "file").begin(2)


def test_the_advised_output_is_no_input_either(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{}\n")
    with pytest.raises(UsageError, match=r"take output=.*a\.predictions\.jsonl$"):
        refuse_output(tmp_path / "a.tsv", [str(tmp_path / "a.jsonl")])


def table(folder: Path, model: str = "a") -> Output:
    return Output(folder / "out.csv", {"model": model}, fresh=False)


def test_a_table_has_a_column_for_each_field_once_it_is_complete(tmp_path: Path) -> None:
    out = table(tmp_path)
    assert out.begin(2) == 0
    out.add([{"row": "a:1", "text": 'é,"\n\r\ud83d', "scores": {"x": 0.5}}, {"row": "a:2", "left_out": "why"}])
    assert not (tmp_path / "out.csv").exists()
    assert table(tmp_path).begin(2) == 2, "goes on with the rows of a process that was killed"
    out.add([{"row": "a:3", "text": None, "labels": ["x"]}])
    out.finish()
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    assert [list(row) for row in found] == [["row", "text", "scores", "left_out", "labels"]] * 3
    assert [row["text"] for row in found] == ['é,"\n\r\\ud83d', "", ""]
    assert (found[0]["scores"], found[1]["left_out"], found[2]["labels"]) == ('{"x": 0.5}', "why", '["x"]')
    assert {file.name for file in tmp_path.iterdir()} == {"out.csv", "out.csv.made_from.json", ".out.csv.lock"}
    whole = (tmp_path / "out.csv").read_bytes()
    again = table(tmp_path)
    assert again.begin(2) == 3
    again.finish()
    assert (tmp_path / "out.csv").read_bytes() == whole
    with pytest.raises(UsageError, match="was made with another model"):
        table(tmp_path, model="b").begin(2)


def test_an_unfinished_table_of_another_model_is_refused(tmp_path: Path) -> None:
    table(tmp_path).begin(2)
    with pytest.raises(UsageError, match="was made with another model"):
        table(tmp_path, model="b").check()


def test_an_input_is_no_unfinished_table(tmp_path: Path) -> None:
    (tmp_path / "a.csv.rows.jsonl").write_text("{}\n")
    with pytest.raises(UsageError, match=r"a\.csv\.rows\.jsonl is one of the inputs"):
        refuse_output(tmp_path / "a.csv", [str(tmp_path / "a.csv.rows.jsonl")])
