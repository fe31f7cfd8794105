import random

import numpy as np
import torch

from domaintune.callbacks.resuming import random_states, set_random_states


def draw() -> list[float]:
    return [float(torch.randn(())), np.random.normal(), random.random(), random.gauss(0, 1), float(torch.rand(()))]


def test_random_states_go_through_a_checkpoint_as_plain_containers(tmp_path) -> None:
    draw()
    torch.save(random_states(), tmp_path / "states")
    wanted = [draw() for _ in range(3)]
    set_random_states(torch.load(tmp_path / "states", weights_only=True))
    assert [draw() for _ in range(3)] == wanted
