"""The picture of embeddings: a panel a state, the same bits each time, and every class in its colour."""

from __future__ import annotations

from pathlib import Path

import matplotlib.image
import numpy as np

from nnunet_semcl.evaluation.embedding_picture import GREY, MARKERS, draw_embeddings
from nnunet_semcl.evaluation.overlay import label_colours

NAMES = {"background": 0, "liver": 1, "spleen": 2}


def draw(output: Path, states: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    classes = np.repeat(list(NAMES), 8)
    is_object = np.tile([True] + 7 * [False], 3) & (classes != "background")
    panels = {f"state {number}": rng.standard_normal((24, 5)) for number in range(states)}
    draw_embeddings(panels, classes, is_object, NAMES, output)
    return matplotlib.image.imread(output)[..., :3]


def test_every_class_has_its_colour_and_every_state_its_panel(tmp_path: Path) -> None:
    one, again = draw(tmp_path / "one.png", 1), draw(tmp_path / "again.png", 1)
    assert (one == again).all()
    colours = {"background": GREY, **label_colours({"liver": 1, "spleen": 2})}
    for colour in colours.values():
        assert (np.abs(one - np.array(colour)).max(-1) < 0.02).sum() > 20
    assert draw(tmp_path / "two.png", 2).shape[1] == 2 * one.shape[1]


def test_markers_are_told_apart() -> None:
    assert len(set(MARKERS)) == len(MARKERS) >= 14  # of BTCV and its background
