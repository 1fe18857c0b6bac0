"""Pseudo-labels: a coarse model's probabilities for unlabelled cases, and the segmentations that follow from them."""

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

FEWEST_VOXELS = 50  # as in the paper: an object with fewer confident voxels is not trusted
CONFIDENT = 0.9  # probability from which a voxel may be the centre of a query or of a patch
FULL = 255  # stands for probability 1 in the files


class PseudoLabelledCases:
    """Unlabelled cases with a coarse model's segmentations in place of labels, as a data set for nnU-Net's loader.

    Args:
        images: case -> its preprocessed image without extension. If the same folder holds a label file or properties,
            they are never opened.
        folder: where `save_pseudo_labels` wrote the predictions.
        objects: labels or regions.
        labels: nnU-Net's label manager.

    Attributes:
        identifiers: the cases in which the model is confident of at least one object.
        skipped: object -> number of cases with fewer than FEWEST_VOXELS confident voxels of the object.
    """

    def __init__(self, images: dict[str, Path], folder: Path, objects: Sequence[Object], labels: LabelManager) -> None:
        self.images = images
        self.source_folder = str(folder)
        self.skipped: Counter[Object] = Counter()
        annotated = (-1, *labels.all_labels)  # nnU-Net's key for annotated voxels, if there is an ignore label
        self._properties = {}
        for case in images:
            segmentation = open_case(_segmentation_file(folder / case))[:]
            segmentation[~_confident(open_case(folder / case)[:], labels)[None]] = UNKNOWN
            voxels = {obj: np.argwhere(np.isin(segmentation, labels_of(obj))) for obj in objects}
            locations = {obj: subsample(found) for obj, found in voxels.items() if len(found) >= FEWEST_VOXELS}
            self.skipped.update(obj for obj in objects if obj not in locations)
            if not locations:
                continue  # otherwise a model that finds nothing would teach that the image is empty
            if labels.has_ignore_label:
                locations[annotated] = subsample(np.argwhere(segmentation != UNKNOWN))
            self._properties[case] = {"class_locations": locations}
        self.identifiers = list(self._properties)

    def load_case(self, identifier: str) -> tuple[blosc2.NDArray | np.ndarray, blosc2.NDArray, None, dict]:
        segmentation = open_case(_segmentation_file(Path(self.source_folder, identifier)))
        return open_case(self.images[identifier]), segmentation, None, self._properties[identifier]


def save_pseudo_labels(
    probabilities: np.ndarray, file: Path, labels: LabelManager, single_component: Sequence[Object] = ()
) -> None:
    """Saves a case's segmentation (1, X, Y, Z) int16 as `file`_seg.b2nd, then its probabilities as `file`.b2nd.

    Args:
        probabilities: (heads, X, Y, Z), from 0 to 1; saved in steps of 1/255.
        file: path without extension.
        labels: nnU-Net's label manager.
        single_component: objects that keep only their largest component; the other components become background.

    Raises:
        InputError: the files cannot be written.
    """
    soft = np.rint(probabilities * FULL).astype(np.uint8)
    # For labels nnU-Net takes the argmax: bytes give the same result as floats in a quarter of the memory.
    segmentation = labels.convert_probabilities_to_segmentation(soft / FULL if labels.has_regions else soft)
    segmentation = np.asarray(segmentation, np.int16)
    cleaned = keep_largest_components(segmentation, single_component)
    removed = cleaned != segmentation
    soft[:, removed] = 0
    if not labels.has_regions:
        soft[0, removed] = FULL
    for array, target in ((cleaned[None], _segmentation_file(file)), (soft, file)):
        with atomic_write(target.with_name(f"{target.name}.b2nd")) as temporary:
            temporary.unlink(missing_ok=True)  # blosc2 does not overwrite a file
            blosc2.asarray(array, urlpath=str(temporary))


def _confident(soft: np.ndarray, labels: LabelManager) -> np.ndarray:
    """Returns where the model is confident in every head: soft masks (heads, X, Y, Z) uint8 -> (X, Y, Z) bool."""
    certainty = np.maximum(soft, FULL - soft).min(0) if labels.has_regions else soft.max(0)
    return certainty >= CONFIDENT * FULL


def _segmentation_file(case: Path) -> Path:
    return case.with_name(f"{case.name}_seg")
