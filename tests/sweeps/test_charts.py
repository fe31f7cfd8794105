from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import sweeps_on_disk as made
from torch.utils.tensorboard import SummaryWriter

from domaintune.runs.outcomes import read_sweep, varied_keys
from domaintune.sweeps.charts import _scale, learning_rates, parallel_coordinates, validation_curves
from domaintune.sweeps.ranking import Ranking, rank


def ranking(folder: Path) -> Ranking:
    trials = read_sweep(folder).trials
    return rank(trials, varied_keys(trials))[0]


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_the_learning_rate_has_a_line_for_each_other_setting_and_ticks_as_typed(tmp_path: Path) -> None:
    for decay in (0.0, 0.1):
        made.rates(tmp_path, {1e-3: 3.0, 1e-2: 2.5, 1e-1: 30.0}, **{"optim.weight_decay": decay})
    lost = read_sweep(made.trial(tmp_path, {"optim.lr": 1.0}, None).parent).trials[-1]
    svg = learning_rates(ranking(tmp_path), [lost])
    assert svg is not None
    found = texts(svg)
    assert {"0.001", "0.01", "0.1", "optim.weight_decay=0", "optim.weight_decay=0.1", "no result"} <= set(found)
    assert "val/loss, mean ± sd over seeds" in found


def test_without_two_rates_or_two_settings_there_is_no_picture(tmp_path: Path) -> None:
    made.rates(tmp_path, {1e-3: 3.0}, **{"optim.weight_decay": 0.0})
    made.rates(tmp_path, {1e-3: 3.0}, **{"optim.weight_decay": 0.1})
    found = ranking(tmp_path)
    assert learning_rates(found, []) is parallel_coordinates(found) is validation_curves(found, "val/loss") is None


def test_parallel_coordinates_have_an_axis_for_each_setting_and_one_for_the_metric(tmp_path: Path) -> None:
    for name in ("a", "b$\\frac{"):
        made.rates(tmp_path, {1e-3: 3.0, 1e-2: 2.5}, **{"model.checkpoint": name})
    svg = parallel_coordinates(ranking(tmp_path))
    assert svg is not None
    assert {"model.checkpoint", "optim.lr", "val/loss", "a", "b$\\frac{", "0.001", "0.01"} <= set(texts(svg))


@pytest.mark.parametrize(
    ("values", "heights"),
    [([1e-4, 1e-3, 1e-2], [0, 0.5, 1]), ([1, 2, 3], [0, 0.5, 1]), (["x", "y"], [0, 1]), ([True, False], [1, 0])],
)
def test_numbers_stand_by_size_and_other_values_evenly(values: list, heights: list[float]) -> None:
    place, _ = _scale(values)
    assert [place(value) for value in values] == pytest.approx(heights)
    same, _ = _scale(values[:1])
    assert np.isfinite(same(values[0]))


def test_validation_curves_come_from_the_trials_own_events(tmp_path: Path) -> None:
    made.rates(tmp_path, {1e-3: 3.0, 1e-2: 2.5})
    for folder in tmp_path.glob("optim.lr=*"):
        writer = SummaryWriter(str(folder))
        for step in (0, 10, 20):
            writer.add_scalar("val/loss", 5 - step / 10, step)
        writer.close()
    svg = validation_curves(ranking(tmp_path), "val/loss")
    assert svg is not None
    assert {"optim.lr=0.001", "optim.lr=0.01", "optimizer steps"} <= set(texts(svg))
