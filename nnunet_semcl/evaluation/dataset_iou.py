"""IoU of a class over all voxels of a data set, and its mean over the classes: the mIoU of natural images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from nnunet_semcl.evaluation.comparison import MEAN

Overlaps = Mapping[str, tuple[int, int]]
"""Class -> voxels in both masks of it, and voxels in either."""

MEAN_WITH_BACKGROUND = "mean with background"


def overlaps_of(found: np.ndarray, true: np.ndarray, classes: Mapping[str, tuple[int, ...]]) -> Overlaps:
    """Counts each class in a case.

    Args:
        found: the prediction, of any shape.
        true: the truth, of the same shape. Voxels that do not count are left out of both.
        classes: name -> labels that it unites.
    """
    overlaps = {}
    for name, labels in classes.items():
        one, other = np.isin(found, labels), np.isin(true, labels)
        overlaps[name] = (int(np.count_nonzero(one & other)), int(np.count_nonzero(one | other)))
    return overlaps


def dataset_iou(sides: Mapping[str, Iterable[Overlaps]], background: str) -> dict[str, list[float]]:
    """Adds up intersections and unions over all cases, and divides.

    Args:
        sides: side -> what `overlaps_of` returned for each case.
        background: name of the class that the first mean leaves out, as nnU-Net does. The mIoU of VOC and of CamVid
            has it.

    Returns:
        Class, MEAN or MEAN_WITH_BACKGROUND -> the IoU of each side; NaN for a class that is nowhere. A mean is over the
        classes for which it is defined on all sides, so that like meets like.
    """
    of_sides = []
    for cases in sides.values():
        sums: dict[str, np.ndarray] = {}
        for case in cases:
            for name, overlap in case.items():
                sums[name] = sums.get(name, np.zeros(2, np.int64)) + overlap
        of_sides.append(
            {name: float(both / either) if either else float("nan") for name, (both, either) in sums.items()}
        )
    rows = {name: [side[name] for side in of_sides] for name in of_sides[0]}
    foreground = [values for name, values in rows.items() if name != background]
    return rows | {MEAN: _mean(foreground), MEAN_WITH_BACKGROUND: _mean([*rows.values()])}


def _mean(rows: list[list[float]]) -> list[float]:
    """Means over classes (rows) of each side (columns)."""
    values = np.array(rows)
    known = ~np.isnan(values).any(1)
    return (values[known].mean(0) if known.any() else np.full(values.shape[1], np.nan)).tolist()
