"""--config-dir names a folder whose leaves win over those of conf/."""

from pathlib import Path

import pytest
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl

from domaintune.config import own_leaves
from domaintune.config.help import list_groups
from domaintune.config.own_leaves import OwnLeavesFirst, take_folder
from domaintune.errors import UsageError


@pytest.fixture(autouse=True)
def no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_leaves, "_folder", None)


@pytest.mark.parametrize("typed", [["--config-dir", "{}"], ["--config-dir={}"], ["-cd", "{}"]])
def test_the_folder_stands_before_conf_and_in_the_line_of_further_processes(tmp_path: Path, typed: list[str]) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("defaults: [_base, gpt2]\n")
    folder = [word.format(tmp_path) for word in typed]
    taken = take_folder(["seed=1", *folder, "-m", "optim.lr=1,2"])
    assert taken == ["seed=1", "-m", "optim.lr=1,2", "--config-dir", str(tmp_path)]
    path = ConfigSearchPathImpl()
    path.append("hydra", "pkg://hydra.conf")
    path.append("main", "file:///conf")
    OwnLeavesFirst().manipulate_search_path(path)
    assert [(each.provider, each.path) for each in path.get_path()] == [
        ("hydra", "pkg://hydra.conf"),
        ("command-line", f"file://{tmp_path}"),
        ("main", "file:///conf"),
    ]


def test_a_folder_below_home_is_typed_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "a.yaml").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path))
    take_folder(["--config-dir=~/mine"])
    assert own_leaves._folder == str(tmp_path / "mine")


@pytest.mark.parametrize(
    ("files", "typed", "told"),
    [
        ({}, ["--config-dir", "nowhere"], "--config-dir nowhere: no such folder"),
        ({}, ["--config-dir", ""], "--config-dir '': no such folder"),
        ({"model/a.yaml": ""}, ["--config-dir=.", "-cd", "."], "is given twice"),
        ({"mine.yaml": "", "model/mine.yml": ""}, ["--config-dir", "."], "no leaf lies in it"),
        ({"model/a.yaml": "a: [1"}, ["--config-dir", "."], r"model/a\.yaml can't be read: .*line 1"),
        ({"model/a.yaml": "a: 1\na: 2"}, ["--config-dir", "."], r"model/a\.yaml can't be read: .*duplicate key a"),
        ({"model/gpt2.yaml": "defaults: [gpt2]"}, ["--config-dir", "."], r"model/gpt2\.yaml: builds on itself"),
    ],
)
def test_what_is_wrong_with_a_folder_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], typed: list[str], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=told):
        take_folder(typed)


def test_other_files_of_a_project_are_not_read(tmp_path: Path) -> None:
    for name, text in {
        "model/mine.yaml": "defaults: [_base]",
        "k8s/two.yaml": "a: 1\n---\nb: [",
        "x.yaml": "]",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    take_folder(["--config-dir", str(tmp_path)])
    assert own_leaves._folder == str(tmp_path)


def test_the_groups_have_ones_own_choices_too_and_no_bases(tmp_path: Path) -> None:
    for leaf in ("model/mine.yaml", "model/_base.yaml", "schedule/saw.yaml"):
        (tmp_path / leaf).parent.mkdir(exist_ok=True)
        (tmp_path / leaf).write_text("")
    take_folder(["--config-dir", str(tmp_path)])
    groups = {line.split()[0]: line.split(maxsplit=1)[1].split(", ") for line in list_groups().splitlines()}
    assert {"gpt2", "mine"} < set(groups["model"])
    assert "_base" not in groups["model"]
    assert groups["schedule"] == ["saw"]
    assert "hydra" not in groups
