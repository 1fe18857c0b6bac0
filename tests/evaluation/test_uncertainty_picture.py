"""The slice with the most uncertainty, and its picture."""

from __future__ import annotations

from pathlib import Path

import matplotlib.image
import numpy as np

from nnunet_semcl.evaluation.overlay import label_colours
from nnunet_semcl.evaluation.uncertainty_picture import UnsureSlice, draw_uncertainty

LABELS = {"a": 1, "b": 2}


def volumes() -> tuple[np.ndarray, np.ndarray]:
    segmentation, entropy = np.zeros((5, 30, 30), np.int16), np.zeros((5, 30, 30), np.float16)
    segmentation[3, 5:15, 5:15] = 1
    entropy[3, 4:16, 4:16] = 0.5
    entropy[1, 0, 0] = 1
    return segmentation, entropy


def test_the_slice_with_the_largest_sum_is_found_and_kept(tmp_path: Path) -> None:
    segmentation, entropy = volumes()
    found = UnsureSlice.find(segmentation, entropy)
    assert (found.number, found.of) == (3, 5)
    found.save(tmp_path / "case.1.npz")
    loaded = UnsureSlice.load(tmp_path / "case.1.npz")
    assert (loaded.number, loaded.of) == (3, 5)
    assert (loaded.segmentation == segmentation[3]).all()
    assert (loaded.entropy == entropy[3]).all()


def test_many_small_entropies_do_not_overflow() -> None:
    """Half precision holds no number above 65504."""
    entropy = np.zeros((2, 400, 400), np.float16)
    entropy[0], entropy[1] = 0.5, 0.75
    assert UnsureSlice.find(np.zeros(entropy.shape, np.int16), entropy).number == 1


def test_outlines_and_entropy_are_drawn(tmp_path: Path) -> None:
    image = np.random.default_rng(0).random((30, 30))
    drawn = {}
    for name, volume in (("with", volumes()), ("without", tuple(np.zeros_like(of) for of in volumes()))):
        draw_uncertainty("1. case", image, UnsureSlice.find(*volume), LABELS, 1.0, tmp_path / f"{name}.png")
        drawn[name] = matplotlib.image.imread(tmp_path / f"{name}.png")[..., :3]
    colour = np.array(label_colours(LABELS)["a"])

    def share(picture: np.ndarray) -> float:
        return float((np.abs(picture - colour).max(-1) < 0.02).mean())

    assert share(drawn["with"]) > 0.0005
    assert share(drawn["without"]) == 0
    assert share(drawn["with"][:, : drawn["with"].shape[1] // 3]) == 0  # the image alone


def test_elongated_voxels_keep_their_shape(tmp_path: Path) -> None:
    image = np.random.default_rng(0).random((20, 40))
    unsure = UnsureSlice(0, 1, np.ones((20, 40), np.uint8), np.ones((20, 40), np.float16))
    heights = []
    for aspect in (1.0, 2.0):
        draw_uncertainty("1. case", image, unsure, LABELS, aspect, tmp_path / "picture.png")
        heights.append(matplotlib.image.imread(tmp_path / "picture.png").shape[0])
    assert heights[1] > 1.3 * heights[0]
