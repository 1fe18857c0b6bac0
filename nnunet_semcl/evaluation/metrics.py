"""Dice, surface Dice and surface distances of a predicted mask, by MONAI."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice

MEASURES = ("Dice", "surface Dice", "HD95", "ASD")
HIGHER_IS_BETTER = {"Dice": True, "surface Dice": True, "HD95": False, "ASD": False}
Measures = dict[str, float]


def measures_of(found: np.ndarray, true: np.ndarray, spacing: Sequence[float], tolerance: float) -> Measures:
    """Compares two masks of the same shape, (Z, Y, X), or (1, Y, X) for a picture.

    Args:
        found: the prediction, bool.
        true: the truth, bool.
        spacing: mm along each axis.
        tolerance: mm; surface Dice is the share of both surfaces that are as close as this to the other one.

    Returns:
        A value for each of MEASURES: ASD is the mean distance of both surfaces to each other, HD95 the larger of the
        two 95th percentiles, in mm. NaN where neither mask has a voxel. Where only one has, Dice and surface Dice are
        0, and the distances are NaN.
    """
    size = int(np.count_nonzero(found)) + int(np.count_nonzero(true))
    if size == 0:
        return dict.fromkeys(MEASURES, float("nan"))
    dice = 2 * int(np.count_nonzero(found & true)) / size
    if not found.any() or not true.any():
        return {"Dice": dice, "surface Dice": 0.0, "HD95": float("nan"), "ASD": float("nan")}
    if len(found) == 1:
        found, true, spacing = found[0], true[0], spacing[1:]
    one, other = (torch.from_numpy(mask)[None, None].float() for mask in (found, true))
    options: dict[str, Any] = {"include_background": True, "spacing": tuple(spacing)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of MONAI's own call
        return {
            "Dice": dice,
            "surface Dice": float(compute_surface_dice(one, other, [tolerance], **options)),
            "HD95": float(compute_hausdorff_distance(one, other, percentile=95, **options)),
            "ASD": float(compute_average_surface_distance(one, other, symmetric=True, **options)),
        }
