"""The help page of train is made of conf/ and of the schema."""

import re
from pathlib import Path

import hydra
import pytest

from domaintune.config.help import list_settings
from domaintune.config.programs import CONF
from domaintune.config.schema import all_facts


def test_a_setting_is_told_as_the_schema_has_it() -> None:
    lines = list_settings("optim.lr", "seed").splitlines()
    assert [line.split(maxsplit=1)[0] for line in lines] == ["optim.lr", "seed"]
    assert lines[1].endswith(all_facts()["seed"].meaning)


def test_the_page_names_groups_settings_and_commands(compose: object, monkeypatch: pytest.MonkeyPatch) -> None:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        page: str = hydra.compose("train", return_hydra_config=True).hydra.help.template
    choices = {leaf.stem for leaf in Path(CONF / "model").glob("[!_]*.yaml")}
    assert choices <= set(re.search(r"^  model +(.*)$", page, re.MULTILINE)[1].split(", "))  # type: ignore[index]
    typed = re.findall(r"^  ([a-z_]+\.[a-z_]+) ", page, re.MULTILINE)
    assert len(typed) >= 8
    assert set(typed) <= set(all_facts())
    assert "python train.py data.path=~/notes" in page
