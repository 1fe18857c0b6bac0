"""Pseudo-labels of unlabelled cases: a coarse model's segmentations, and how far they may be believed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import blosc2
import numpy as np
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_semcl.data.components import keep_largest_components
from nnunet_semcl.data.lazy_segmentation import FULL, LazySegmentation
from nnunet_semcl.files.atomic import atomic_write
from nnunet_semcl.files.cases import UNKNOWN, Object, labels_of, open_case, subsample

FEWEST_VOXELS = 50  # as in the paper: an object with fewer confident voxels counts as not found


class PseudoLabelledCases:
    """Unlabelled cases with a coarse model's segmentations in place of labels, as a data set for nnU-Net's loader.

    A segmentation says nothing where the model is not confident. In a case in which an object was not found, it also
    says nothing where it says background: the object may be there.

    Args:
        images: case -> its preprocessed image without extension. If the same folder holds a label file or properties,
            they are never opened.
        folder: where `save_pseudo_labels` wrote the predictions.
        objects: labels or regions that occur in the labelled cases.
        labels: nnU-Net's label manager, with the ignore label that marks what a segmentation does not know.
        masks_background: whether nnU-Net sets images to 0 outside the body.

    Attributes:
        identifiers: the cases in which the model is confident of at least one object.
        complete: the cases in which all objects were found.
        skipped: object -> number of cases with fewer than FEWEST_VOXELS confident voxels of the object.
        supervised_share: of the voxels in these cases, the share that is not ignored.
    """

    def __init__(
        self,
        images: dict[str, Path],
        folder: Path,
        objects: Sequence[Object],
        labels: LabelManager,
        masks_background: bool = False,
    ) -> None:
        self.images = images
        self.source_folder = str(folder)
        self.labels = labels
        self.masks_background = masks_background
        self.skipped: Counter[Object] = Counter()
        self.complete: set[str] = set()
        self._properties = {}
        annotated = (-1, *labels.all_labels)  # nnU-Net's key for annotated voxels, used if there is an ignore label
        supervised, voxels = 0, 0
        for case in images:
            known = self._segmentation(case, knows_background=True)[:]
            known[known == labels.ignore_label] = UNKNOWN
            found = {obj: np.argwhere(np.isin(known, labels_of(obj))) for obj in objects}
            locations = {obj: subsample(places) for obj, places in found.items() if len(places) >= FEWEST_VOXELS}
            self.skipped.update(obj for obj in objects if obj not in locations)
            if not locations:
                continue  # otherwise a model that finds nothing would teach that the image is empty
            if len(locations) == len(objects):
                self.complete.add(case)
            supervised += np.count_nonzero(known >= 0 if case in self.complete else known > 0)
            voxels += known.size
            locations[annotated] = subsample(np.argwhere(known != UNKNOWN))
            self._properties[case] = {"class_locations": locations}
        self.identifiers = list(self._properties)
        self.supervised_share = supervised / max(1, voxels)

    def load_case(self, identifier: str) -> tuple[blosc2.NDArray | np.ndarray, LazySegmentation, None, dict]:
        segmentation = self._segmentation(identifier, identifier in self.complete)
        return segmentation.image, segmentation, None, self._properties[identifier]

    def _segmentation(self, case: str, knows_background: bool) -> LazySegmentation:
        file = Path(self.source_folder, case)
        return LazySegmentation(
            open_case(self.images[case]),
            open_case(_segmentation_file(file)),
            open_case(file),
            self.labels.ignore_label,
            knows_background,
            self.masks_background,
        )


def save_pseudo_labels(
    probabilities: np.ndarray, file: Path, labels: LabelManager, single_component: Sequence[Object] = ()
) -> None:
    """Saves a case's segmentation (1, X, Y, Z) int16 as `file`_seg.b2nd, then its confidence uint8 as `file`.b2nd.

    The confidence is the probability of a voxel's label, in steps of 1/255; with regions, of the least certain region.

    Args:
        probabilities: (heads, X, Y, Z), from 0 to 1.
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
    confidence = np.maximum(soft, FULL - soft).min(0) if labels.has_regions else soft.max(0)
    cleaned = keep_largest_components(segmentation, single_component)
    confidence[cleaned != segmentation] = FULL
    for array, target in ((cleaned, _segmentation_file(file)), (confidence, file)):
        with atomic_write(target.with_name(f"{target.name}.b2nd")) as temporary:
            temporary.unlink(missing_ok=True)  # blosc2 does not overwrite a file
            blosc2.asarray(array[None], urlpath=str(temporary))


def _segmentation_file(case: Path) -> Path:
    return case.with_name(f"{case.name}_seg")
