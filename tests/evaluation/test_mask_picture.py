"""The picture of pseudo-labels, read back: colours where there are labels, a veil where nothing supervises."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import matplotlib.image
import numpy as np
import pytest

from nnunet_semcl.evaluation.mask_picture import draw_masks
from nnunet_semcl.evaluation.overlay import label_colours

LABELS = {"a": 1, "b": 2}


def cases(number: int, segmentation: np.ndarray) -> SimpleNamespace:
    image = np.linspace(0, 1, segmentation.size, dtype=np.float32).reshape(1, *segmentation.shape)
    names = [f"case_{i}" for i in range(number)]
    return SimpleNamespace(identifiers=names, load_case=lambda _: (image, segmentation[None], None, {}))


def near(picture: np.ndarray, colour: tuple[float, ...]) -> float:
    """Share of pixels whose hue is that of the colour."""
    colourful = np.ptp(picture, axis=-1) > 0.15
    direction = picture - picture.mean(-1, keepdims=True)
    wanted = np.array(colour) - np.mean(colour)
    cosine = (direction @ wanted) / (np.linalg.norm(direction, axis=-1) * np.linalg.norm(wanted) + 1e-9)
    return float((colourful & (cosine > 0.97)).mean())


@pytest.mark.parametrize("number", [1, 3, 9])
def test_labels_have_their_colours(tmp_path: Path, number: int) -> None:
    segmentation = np.zeros((3, 20, 20), np.int16)
    segmentation[1, :10], segmentation[1, 12:] = 1, 2
    draw_masks(cases(number, segmentation), LABELS, 3, tmp_path / "masks.png")
    picture = matplotlib.image.imread(tmp_path / "masks.png")[..., :3]
    assert picture.shape[1] == 300 * min(number, 4)
    assert all(near(picture, colour) > 0.02 for colour in label_colours(LABELS).values())


def test_what_does_not_supervise_is_veiled(tmp_path: Path) -> None:
    known, unknown = (np.full((1, 20, 20), value, np.int16) for value in (0, 3))
    for name, segmentation in (("known", known), ("unknown", unknown)):
        draw_masks(cases(1, segmentation), LABELS, 3, tmp_path / f"{name}.png")
    dark, veiled = (matplotlib.image.imread(tmp_path / f"{name}.png")[..., :3] for name in ("known", "unknown"))
    height = len(dark)
    assert np.abs(veiled[height // 2 :] - dark[height // 2 :]).mean() > 0.02
    assert np.abs(veiled[: height // 3] - dark[: height // 3]).mean() < 1e-6
