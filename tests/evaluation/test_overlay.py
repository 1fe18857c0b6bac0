"""Overlays and loss curves as pictures."""

from pathlib import Path

import matplotlib
import numpy as np
import pytest
import SimpleITK as sitk
from matplotlib.image import imread

from nnunet_semcl.errors import InputError
from nnunet_semcl.evaluation.overlay import draw_overlay, most_organs

LABELS = {"liver": 1, "spleen": 2}
DICE = {"A": {"liver": 0.5, "spleen": float("nan")}, "B": {"liver": 1.0, "spleen": 1.0}}


def write(path: Path, volume: np.ndarray) -> Path:
    sitk.WriteImage(sitk.GetImageFromArray(volume), str(path))
    return path


def colours(picture: Path) -> int:
    """Number of different strong colours in a picture."""
    pixels = (imread(picture)[..., :3] * 15).round().reshape(-1, 3)
    strong = pixels[np.ptp(pixels, axis=1) > 5]
    return len(np.unique(strong, axis=0))


@pytest.fixture
def case(tmp_path: Path) -> tuple[Path, Path, np.ndarray]:
    truth = np.zeros((4, 12, 16), np.uint8)
    truth[1, 2:6, 2:6] = 1
    truth[2, 2:6, 2:6] = 1
    truth[2, 7:10, 8:14] = 2
    image = (np.random.default_rng(0).normal(0, 10, truth.shape) + 100 * truth).astype(np.int16)
    return write(tmp_path / "image.nii.gz", image), write(tmp_path / "truth.nii.gz", truth), truth


def test_overlay_paints_the_organs(case: tuple[Path, Path, np.ndarray], tmp_path: Path) -> None:
    image, truth_file, truth = case
    good, empty = write(tmp_path / "good.nii.gz", truth), write(tmp_path / "empty.nii.gz", np.zeros_like(truth))
    output = tmp_path / "overlay.png"
    backend = matplotlib.get_backend()
    draw_overlay(image, truth_file, {"A": good, "B": empty}, LABELS, DICE, output)
    assert matplotlib.get_backend() == backend
    height, width = imread(output).shape[:2]
    assert width > 2 * height > 200
    assert colours(output) > 2
    panels = np.array_split(imread(output)[: height // 2, :, :3], 4, axis=1)  # above the legends
    painted = [(np.ptp(panel, axis=2) > 0.2).mean() for panel in panels]
    assert painted[0] == painted[3] == 0, "the image and the empty prediction show no colour"
    assert min(painted[1], painted[2]) > 0.02
    assert not list(tmp_path.glob(".overlay*"))


def test_overlay_refuses_another_grid_and_an_empty_truth(case: tuple[Path, Path, np.ndarray], tmp_path: Path) -> None:
    image, truth_file, truth = case
    other = write(tmp_path / "other.nii.gz", truth[:3])
    with pytest.raises(InputError, match=r"other\.nii\.gz: the shape \(3, 12, 16\) differs from the image's"):
        draw_overlay(image, truth_file, {"A": other}, LABELS, DICE, tmp_path / "overlay.png")
    empty = write(tmp_path / "empty.nii.gz", np.zeros_like(truth))
    with pytest.raises(InputError, match=r"empty\.nii\.gz contains only background.* another case"):
        draw_overlay(image, empty, {}, LABELS, DICE, tmp_path / "overlay.png")
    assert not (tmp_path / "overlay.png").exists()


def test_most_organs_prefers_many_labels_then_many_voxels() -> None:
    segmentation = np.zeros((4, 5, 5), np.uint8)
    segmentation[0] = 1
    segmentation[1, 0, :2] = 1, 2
    segmentation[2, 0, :3] = 1, 2, 2
    assert most_organs(segmentation) == 2
