"""Pseudo-labels of unlabelled cases: a coarse model's segmentations, and how far they may be believed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import blosc2
import numpy as np
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_semcl.data.components import keep_largest_components
from nnunet_semcl.data.lazy_segmentation import FULL, LazySegmentation
from nnunet_semcl.files.atomic import atomic_write
from nnunet_semcl.files.cases import UNKNOWN, Object, labels_of, open_case, subsample

FEWEST_VOXELS = 50  # as in the paper: an object with fewer confident voxels counts as not found
FEWEST_OF_SIZE = 0.1  # as does one with less than this share of its size in labelled cases
AGREEMENT = 0.7  # Dice of two predictions of an object below which neither is believed


class PseudoLabelledCases:
    """Unlabelled cases with a coarse model's segmentations in place of labels, as a data set for nnU-Net's loader.

    A segmentation says nothing where the model is not confident. An object with too few confident voxels in a case is
    missing there: these voxels say nothing either, and background has the label `maybe_background`, since it may be
    that object.

    Args:
        images: case -> its preprocessed image without extension. If the same folder holds a label file or properties,
            they are never opened.
        folder: where `save_pseudo_labels` wrote the predictions.
        least: labels or regions that occur in the labelled cases -> confident voxels with which one counts as found.
        labels: nnU-Net's label manager, with the ignore label that marks what a segmentation does not know.
        masks_background: whether nnU-Net sets images to 0 outside the body.

    Attributes:
        identifiers: the cases in which the model is confident of at least one object.
        missing: case -> the objects that were not found in it.
        skipped: object -> number of cases in which it was not found.
        supervised_share: of the voxels in these cases, the share that is not ignored.
    """

    def __init__(
        self,
        images: dict[str, Path],
        folder: Path,
        least: Mapping[Object, int],
        labels: LabelManager,
        masks_background: bool = False,
    ) -> None:
        self.images = images
        self.source_folder = str(folder)
        self.labels = labels
        self.masks_background = masks_background
        self.skipped: Counter[Object] = Counter()
        self.missing: dict[str, list[Object]] = {}
        self._properties = {}
        annotated = (-1, *labels.all_labels)  # nnU-Net's key for annotated voxels, used if there is an ignore label
        supervised, voxels = 0, 0
        for case in images:
            known = self._segmentation(case)[:]
            known[known == labels.ignore_label] = UNKNOWN
            places = {obj: np.argwhere(np.isin(known, labels_of(obj))) for obj in least}
            locations = {obj: subsample(places[obj]) for obj, number in least.items() if len(places[obj]) >= number}
            missing = [obj for obj in least if obj not in locations]
            self.skipped.update(missing)
            if not locations:
                continue  # otherwise a model that finds nothing would teach that the image is empty
            self.missing[case] = missing
            known[np.isin(known, _labels_of_all(missing))] = UNKNOWN
            supervised += np.count_nonzero(known != UNKNOWN)
            voxels += known.size
            locations[annotated] = subsample(np.argwhere(known != UNKNOWN))
            self._properties[case] = {"class_locations": locations}
        self.identifiers = list(self._properties)
        self.supervised_share = supervised / max(1, voxels)

    def load_case(self, identifier: str) -> tuple[blosc2.NDArray | np.ndarray, LazySegmentation, None, dict]:
        segmentation = self._segmentation(identifier)
        return segmentation.image, segmentation, None, self._properties[identifier]

    def _segmentation(self, case: str) -> LazySegmentation:
        file, missing = Path(self.source_folder, case), self.missing.get(case, [])
        return LazySegmentation(
            open_case(self.images[case]),
            open_case(_segmentation_file(file)),
            open_case(file),
            self.labels.ignore_label,
            _labels_of_all(missing),
            maybe_background(self.labels) if missing else 0,
            self.masks_background,
        )


def least_voxels(sizes: Sequence[int]) -> int:
    """Returns the number of confident voxels with which an object counts as found, by its sizes in labelled cases."""
    return max(FEWEST_VOXELS, round(FEWEST_OF_SIZE * float(np.median(sizes or [0]))))


def _labels_of_all(objects: Sequence[Object]) -> list[int]:
    return [label for obj in objects for label in labels_of(obj)]


def maybe_background(labels: LabelManager) -> int:
    """Returns the label of voxels that are background, or an object that was not found in the case."""
    return int(labels.ignore_label) + 1


def save_pseudo_labels(
    probabilities: np.ndarray,
    file: Path,
    labels: LabelManager,
    single_component: Sequence[Object] = (),
    second: np.ndarray | None = None,
) -> None:
    """Saves a case's segmentation (1, X, Y, Z) int16 as `file`_seg.b2nd, then its confidence uint8 as `file`.b2nd.

    The confidence is the probability of a voxel's label, in steps of 1/255; with regions, of the least certain region.
    It is 0 in an object on which a second prediction disagrees: Dice below AGREEMENT.

    Args:
        probabilities: (heads, X, Y, Z), from 0 to 1.
        file: path without extension.
        labels: nnU-Net's label manager.
        single_component: objects that keep only their largest component; the others become background of confidence 0,
            since the largest one may be the wrong one.
        second: the second prediction, as `probabilities`.

    Raises:
        InputError: the files cannot be written.
    """
    soft = np.rint(probabilities * FULL).astype(np.uint8)
    segmentation = _hard_labels(soft, labels)
    confidence = np.maximum(soft, FULL - soft).min(0) if labels.has_regions else soft.max(0)
    cleaned = keep_largest_components(segmentation, single_component)
    confidence[cleaned != segmentation] = 0
    if second is not None:
        other = _hard_labels(np.rint(second * FULL).astype(np.uint8), labels)
        for obj in labels.foreground_regions if labels.has_regions else labels.foreground_labels:
            here, there = (np.isin(each, labels_of(obj)) for each in (segmentation, other))
            if 2 * np.count_nonzero(here & there) < AGREEMENT * (np.count_nonzero(here) + np.count_nonzero(there)):
                confidence[here] = 0
    for array, target in ((cleaned, _segmentation_file(file)), (confidence, file)):
        with atomic_write(target.with_name(f"{target.name}.b2nd")) as temporary:
            temporary.unlink(missing_ok=True)  # blosc2 does not overwrite a file
            blosc2.asarray(array[None], urlpath=str(temporary))


def _hard_labels(soft: np.ndarray, labels: LabelManager) -> np.ndarray:
    # For labels nnU-Net takes the argmax: bytes give the same result as floats in a quarter of the memory.
    return np.asarray(
        labels.convert_probabilities_to_segmentation(soft / FULL if labels.has_regions else soft), np.int16
    )


def _segmentation_file(case: Path) -> Path:
    return case.with_name(f"{case.name}_seg")
