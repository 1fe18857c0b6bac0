"""Dice, and surface distances in mm, of the cases nnU-Net has validated."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import numpy as np
import SimpleITK
from medpy.metric.binary import asd, hd95


def measures_by_case(summary: Path) -> dict[str, dict[str, float]]:
    """Means over the objects (labels or regions) of each case in nnU-Net's validation/summary.json.

    Returns: case -> dice, asd and hd95 in mm (medpy's: surface voxels of the prediction to the reference's, and the
    95th percentile both ways), missed: how many objects were not predicted at all. What is undefined is left out, as
    Dice where neither has the object, distances where one has not.
    """
    return {
        Path(case["reference_file"]).name.split(".")[0]: _measures(case)
        for case in json.loads(summary.read_text())["metric_per_case"]
    }


def _measures(case: dict) -> dict[str, float]:
    image = SimpleITK.ReadImage(case["reference_file"])
    reference = SimpleITK.GetArrayFromImage(image)
    prediction = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(case["prediction_file"]))
    spacing = image.GetSpacing()[::-1]
    dice, distances, missed = [], [], 0
    for key, of_object in case["metrics"].items():
        dice.append(of_object["Dice"])
        labels = np.atleast_1d(ast.literal_eval(key))
        found, there = np.isin(prediction, labels), np.isin(reference, labels)
        missed += int(there.any() and not found.any())
        if found.any() and there.any():
            distances.append((asd(found, there, spacing), hd95(found, there, spacing)))
    measures = {"missed": missed}
    if not np.isnan(dice).all():
        measures["dice"] = round(float(np.nanmean(dice)), 4)
    if distances:
        measures["asd"], measures["hd95"] = (round(float(mean), 3) for mean in np.mean(distances, 0))
    return measures
