from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch

from nnunet_semcl.data.seeding import random_states, set_random_states


def draw() -> tuple[float, float, float, float]:
    return random.gauss(0, 1), random.random(), float(np.random.normal()), float(torch.rand(1))


def test_states_are_restored_from_a_checkpoint_that_loads_with_weights_only(tmp_path: Path) -> None:
    draw()  # normal numbers are drawn in pairs, and the state keeps the second one
    torch.save(random_states(), tmp_path / "states.pth")
    expected = draw(), draw()
    set_random_states(torch.load(tmp_path / "states.pth", weights_only=True))
    assert (draw(), draw()) == expected
