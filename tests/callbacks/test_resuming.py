import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from domaintune.callbacks.resuming import ExactResume, random_states, remove_points, set_random_states


def draw() -> list[float]:
    return [float(torch.randn(())), np.random.normal(), random.random(), random.gauss(0, 1), float(torch.rand(()))]


def test_random_states_go_through_a_checkpoint_as_plain_containers(tmp_path) -> None:
    draw()
    torch.save(random_states(), tmp_path / "states")
    wanted = [draw() for _ in range(3)]
    set_random_states(torch.load(tmp_path / "states", weights_only=True))
    assert [draw() for _ in range(3)] == wanted


def points(folder: Path) -> dict[str, list[int]]:
    events = EventAccumulator(str(folder)).Reload()
    return {tag: [event.step for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_the_figures_of_a_step_are_taken_out_of_the_curves_and_nothing_else(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path)) as writer:
        for step in (5, 6):
            for tag in ("train/loss", "lr", "train/tokens_per_second", "val/loss"):
                writer.add_scalar(tag, step, step)
            writer.add_text("samples", "text", step)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    remove_points(tmp_path, 7)
    assert file.read_bytes() == whole
    file.write_bytes(whole + b"cut off")
    remove_points(tmp_path, 6)
    assert points(tmp_path) == {"train/loss": [5], "lr": [5], "train/tokens_per_second": [5], "val/loss": [5, 6]}
    assert file.read_bytes().endswith(b"cut off")
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


@pytest.mark.parametrize(("kept", "loaded"), [("TextDataModule", [{"skip": 3}]), ("Place", [])])
def test_the_place_in_the_data_is_found_in_checkpoints_of_earlier_versions(kept: str, loaded: list[Any]) -> None:
    """Under the name of today Lightning finds it itself."""
    found: list[Any] = []

    class Place:
        def load_state_dict(self, state: dict[str, int]) -> None:
            found.append(state)

    trainer: Any = SimpleNamespace(datamodule=Place())
    ExactResume(0).on_load_checkpoint(trainer, L.LightningModule(), {"random_states": [], kept: {"skip": 3}})
    assert found == loaded
