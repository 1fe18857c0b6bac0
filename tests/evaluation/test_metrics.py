"""MONAI's measures against distance maps of scipy's, and edge cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from nnunet_semcl.evaluation.metrics import MEASURES, measures_of

SPACING = (2.5, 0.8, 1.3)


def blobs(seed: int, shape: tuple[int, ...] = (12, 24, 20)) -> np.ndarray:
    smooth = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 2)
    return smooth > np.quantile(smooth, 0.8)


def by_distance_maps(found: np.ndarray, true: np.ndarray, spacing: tuple[float, ...], mm: float) -> dict[str, float]:
    surfaces = [mask & ~ndimage.binary_erosion(mask) for mask in (found, true)]
    to_other = [
        ndimage.distance_transform_edt(~there, sampling=spacing)[here] for here, there in (surfaces, surfaces[::-1])
    ]
    distances = np.concatenate(to_other)
    return {
        "Dice": 2 * (found & true).sum() / (found.sum() + true.sum()),
        "surface Dice": (distances <= mm).mean(),
        "HD95": max(np.percentile(d, 95) for d in to_other),
        "ASD": distances.mean(),
    }


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("tolerance", [0.0, 1.0, 3.0])
def test_equal_to_distance_maps(seed: int, tolerance: float) -> None:
    found, true = blobs(seed), blobs(seed + 10)
    expected = by_distance_maps(found, true, SPACING, tolerance)
    measured = measures_of(found, true, SPACING, tolerance)
    assert measured.keys() == expected.keys()
    for measure in MEASURES:
        assert measured[measure] == pytest.approx(expected[measure], abs=1e-6), measure


def test_a_picture_is_measured_in_its_plane() -> None:
    found, true = blobs(0, (1, 40, 30)), blobs(1, (1, 40, 30))
    expected = by_distance_maps(found[0], true[0], (1.0, 1.5), 1)
    measured = measures_of(found, true, (999, 1.0, 1.5), 1)
    for measure in MEASURES:
        assert measured[measure] == pytest.approx(expected[measure], abs=1e-6), measure


def test_the_same_mask() -> None:
    mask = blobs(3)
    assert measures_of(mask, mask, SPACING, 0) == {"Dice": 1, "surface Dice": 1, "HD95": 0, "ASD": 0}


def test_a_shift_of_one_voxel_along_an_axis() -> None:
    true = np.zeros((10, 10, 10), bool)
    true[3:7, 3:7, 3:7] = True
    measured = measures_of(np.roll(true, 1, 0), true, (2.0, 1.0, 1.0), 2)
    assert measured["Dice"] == 0.75
    assert measured["HD95"] == 2
    assert measured["surface Dice"] == 1


def test_what_is_not_there_is_not_measured() -> None:
    mask, empty = blobs(4), np.zeros((12, 24, 20), bool)
    assert all(math.isnan(value) for value in measures_of(empty, empty, SPACING, 1).values())
    for found, true in ((mask, empty), (empty, mask)):
        measured = measures_of(found, true, SPACING, 1)
        assert (measured["Dice"], measured["surface Dice"]) == (0, 0)
        assert math.isnan(measured["HD95"])
        assert math.isnan(measured["ASD"])
