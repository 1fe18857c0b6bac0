"""Dice, IoU, and surface distances in mm, of the cases that nnU-Net has validated."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import numpy as np
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_file_ending

from nnunet_semcl.evaluation.metrics import measures_of

Measures = dict[str, float]


def measures_by_case(summary: Path) -> dict[str, Measures]:
    """Means over the objects (labels or regions) of each case in nnU-Net's validation/summary.json.

    Returns: case -> dice, iou; asd and hd95 in mm (MONAI's, over both surfaces); missed: how many objects were not
    predicted at all. An undefined measure is left out: Dice where neither side has the object, distances where one
    side has none.
    """
    return {
        Path(case["reference_file"]).name.split(".")[0]: _measures(case)
        for case in json.loads(summary.read_text())["metric_per_case"]
    }


def _measures(case: dict) -> Measures:
    reference, spacing = _read(case["reference_file"])
    prediction, _ = _read(case["prediction_file"])
    dice, iou, distances, missed = [], [], [], 0
    for key, metrics in case["metrics"].items():
        dice.append(metrics["Dice"])
        iou.append(metrics["IoU"])
        labels = np.atleast_1d(ast.literal_eval(key))
        found, true = np.isin(prediction, labels), np.isin(reference, labels)
        missed += int(true.any() and not found.any())
        if found.any() and true.any():
            of_object = measures_of(found, true, spacing, tolerance=1)
            distances.append((of_object["ASD"], of_object["HD95"]))
    measures: Measures = {"missed": missed}
    for name, values in (("dice", dice), ("iou", iou)):
        if not np.isnan(values).all():
            measures[name] = round(float(np.nanmean(values)), 4)
    if distances:
        measures["asd"], measures["hd95"] = (round(float(mean), 3) for mean in np.mean(distances, 0))
    return measures


def _read(file: str) -> tuple[np.ndarray, tuple[float, ...]]:
    """Labels (Z, Y, X), by nnU-Net's reader for the format, and their spacing in mm."""
    ending = "".join(Path(file).suffixes[-2:]) if file.endswith(".nii.gz") else Path(file).suffix
    labels, properties = determine_reader_writer_from_file_ending(ending, file, verbose=False)().read_seg(file)
    return labels[0], tuple(properties["spacing"])
