"""IoU of a data set against the plain formula on the voxels of all cases, one after another."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import jaccard_score

from nnunet_semcl.evaluation.dataset_iou import MEAN_WITH_BACKGROUND, dataset_iou, overlaps_of

CLASSES = {"background": (0,), "a": (1,), "b": (2,), "both": (1, 2), "nowhere": (3,)}


def cases(seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 3, size) for size in ((3, 4), (30, 2), (7, 7))]


def test_equal_to_sklearn_on_all_voxels() -> None:
    truth = cases(0)
    sides = {name: cases(seed) for name, seed in (("old", 1), ("new", 2))}
    overlaps = {
        name: [overlaps_of(found, true, CLASSES) for found, true in zip(side, truth, strict=True)]
        for name, side in sides.items()
    }
    rows = dataset_iou(overlaps, "background")
    true = np.concatenate([case.ravel() for case in truth])
    for number, side in enumerate(sides.values()):
        found = np.concatenate([case.ravel() for case in side])
        background, a, b = jaccard_score(true, found, average=None)
        both = jaccard_score(true > 0, found > 0)
        expected = {"background": background, "a": a, "b": b, "both": both}
        for name, value in expected.items():
            assert rows[name][number] == pytest.approx(value, rel=1e-12)
        assert rows["mean"][number] == pytest.approx((a + b + both) / 3, rel=1e-12)
        assert rows[MEAN_WITH_BACKGROUND][number] == pytest.approx((background + a + b + both) / 4, rel=1e-12)
        assert math.isnan(rows["nowhere"][number])


def test_it_is_not_the_mean_of_the_cases() -> None:
    """A large case counts more than a small one."""
    large, small = np.ones(90, int), np.ones(10, int)
    wrong = np.zeros(10, int)
    overlaps = [overlaps_of(large, large, {"a": (1,)}), overlaps_of(wrong, small, {"a": (1,)})]
    assert dataset_iou({"one": overlaps}, "background")["a"] == [0.9]


def test_means_are_over_the_classes_that_all_sides_have() -> None:
    truth, one, other = np.array([1, 1, 0, 0]), np.array([1, 0, 0, 0]), np.array([1, 1, 2, 0])
    classes = {name: CLASSES[name] for name in ("background", "a", "b")}
    rows = dataset_iou({n: [overlaps_of(f, truth, classes)] for n, f in (("x", one), ("y", other))}, "background")
    assert rows["a"] == [0.5, 1.0]
    assert math.isnan(rows["b"][0])
    assert rows["b"][1] == 0
    assert rows["mean"] == [0.5, 1.0]
    nothing = dataset_iou({"x": [overlaps_of(truth * 0, truth * 0, {"a": (1,)})]}, "background")
    assert math.isnan(nothing["mean"][0])
