from __future__ import annotations

import random

import numpy as np
import torch

from nnunet_semcl.data.seeding import random_states, set_random_states


def draw() -> tuple[float, float, float, float]:
    return random.gauss(0, 1), random.random(), float(np.random.normal()), float(torch.rand(1))


def test_states_go_through_a_safe_checkpoint(tmp_path):
    draw()  # of a pair of normal numbers the second one is kept in the state
    torch.save(random_states(), tmp_path / "states.pth")
    expected = draw(), draw()
    set_random_states(torch.load(tmp_path / "states.pth", weights_only=True))
    assert (draw(), draw()) == expected
