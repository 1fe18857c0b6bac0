"""Pseudo-labels: a coarse model's soft masks of unlabelled cases, and the segmentations that they make."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import blosc2
import numpy as np
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_semcl.data.components import keep_largest_components
from nnunet_semcl.files.atomic import atomic_write
from nnunet_semcl.files.cases import UNKNOWN, Object, labels_of, open_case, subsample

FEWEST_VOXELS = 50  # the paper's: what a coarse model finds of an object below that is not trusted
CONFIDENT = 0.9  # from here on a voxel may be the centre of a query or of a patch
FULL = 255  # probability 1 in the files


class PseudoLabelledCases:
    """Unlabelled cases with a coarse model's segmentations in place of labels, read as one of nnU-Net's data sets.

    Args:
        images: case -> its preprocessed image without extension. Beside it may lie a label file and properties,
            which are never opened.
        folder: where `save_pseudo_labels` put the cases' predictions.
        objects: labels or regions.
        labels: nnU-Net's.

    Attributes:
        identifiers: the cases in which the model is confident of an object.
        skipped: object -> number of cases in which the model found fewer than FEWEST_VOXELS confident voxels of it.
    """

    def __init__(self, images: dict[str, Path], folder: Path, objects: Sequence[Object], labels: LabelManager) -> None:
        self.images = images
        self.source_folder = str(folder)
        self.skipped: Counter[Object] = Counter()
        annotated = (-1, *labels.all_labels)  # nnU-Net's key, where there is an ignore label; here it is everything
        self._properties = {}
        for case in images:
            segmentation = open_case(_segmentation_file(folder / case))[:]
            segmentation[~_confident(open_case(folder / case)[:], labels)[None]] = UNKNOWN
            voxels = {o: np.argwhere(np.isin(segmentation, labels_of(o))) for o in objects}
            locations = {o: subsample(found) for o, found in voxels.items() if len(found) >= FEWEST_VOXELS}
            self.skipped.update(o for o in objects if o not in locations)
            if not locations:
                continue  # else a model that finds nothing would teach that there is nothing
            if labels.has_ignore_label:
                locations[annotated] = subsample(np.argwhere(segmentation != UNKNOWN))
            self._properties[case] = {"class_locations": locations}
        self.identifiers = list(self._properties)

    def load_case(self, identifier: str) -> tuple[blosc2.NDArray | np.ndarray, blosc2.NDArray, None, dict]:
        segmentation = open_case(_segmentation_file(Path(self.source_folder, identifier)))
        return open_case(self.images[identifier]), segmentation, None, self._properties[identifier]


def save_pseudo_labels(
    probabilities: np.ndarray, file: Path, labels: LabelManager, pieces: Sequence[Object] = ()
) -> None:
    """Keeps a case's probabilities (heads, X, Y, Z), from 0 to 1, as `file`.b2nd, in steps of 1/255, and before that
    its segmentation (1, X, Y, Z) int16.

    Args:
        pieces: objects that lie in one piece; but for the largest one they become background.
    """
    soft = np.rint(probabilities * FULL).astype(np.uint8)
    # Of labels nnU-Net takes the largest, in bytes as well as in floats, which would need four times the memory.
    segmentation = labels.convert_probabilities_to_segmentation(soft / FULL if labels.has_regions else soft)
    segmentation = np.asarray(segmentation, np.int16)
    cleaned = keep_largest_components(segmentation, pieces)
    removed = cleaned != segmentation
    soft[:, removed] = 0
    if not labels.has_regions:
        soft[0, removed] = FULL
    for array, target in ((cleaned[None], _segmentation_file(file)), (soft, file)):
        with atomic_write(target.with_name(f"{target.name}.b2nd")) as beside:
            beside.unlink(missing_ok=True)  # blosc2 writes over nothing
            blosc2.asarray(array, urlpath=str(beside))


def _confident(soft: np.ndarray, labels: LabelManager) -> np.ndarray:
    """Soft masks (heads, X, Y, Z) uint8 -> where the model is sure of all that it says, (X, Y, Z) bool."""
    certainty = np.maximum(soft, FULL - soft).min(0) if labels.has_regions else soft.max(0)
    return certainty >= CONFIDENT * FULL


def _segmentation_file(case: Path) -> Path:
    return case.with_name(f"{case.name}_seg")
