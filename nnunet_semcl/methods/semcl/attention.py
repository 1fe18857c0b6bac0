"""Attention: where the objects of a case lie. It gives query centres and cuts images with their segmentations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd

from nnunet_semcl.errors import InputError
from nnunet_semcl.files.cases import BACKGROUND, UNKNOWN, Cases, Object, class_locations, subsample


class Attention:
    """What query batches are drawn from.

    Args:
        dataset: the cases to draw from.
        objects: labels, regions or BACKGROUND.
        ignore_label: the label of voxels that nobody annotated, if the data set has one; they are UNKNOWN.

    Attributes:
        centres: object -> case -> (n, 3) int32 voxel positions (x, y, z) in the preprocessed array. Cases in which
            an object does not occur are left out, objects without a case too.

    Raises:
        InputError: a case's properties hold no class locations.
    """

    def __init__(self, dataset: Cases, objects: Sequence[Object], ignore_label: int | None = None) -> None:
        self.dataset = dataset
        self.ignore_label = ignore_label
        self.centres = {o: {} for o in objects}
        for case in dataset.identifiers:
            locations = self._class_locations(case)
            for o in objects:
                centres = self._background(case) if o == BACKGROUND else _positions(locations.get(o, ()))
                if len(centres) > 0:
                    self.centres[o][case] = subsample(centres)
        self.centres = {o: cases for o, cases in self.centres.items() if cases}

    def cut(self, case: str, box: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
        """A case's image (C, X, Y, Z) float32 and segmentation (1, X, Y, Z) int16 within a box; in a cascade the
        segmentation is (2, X, Y, Z), the previous stage's behind it.

        Args:
            box: [from, to] for each axis, in voxels; where it leaves the case the image is 0, the segmentation UNKNOWN.
        """
        image, segmentation, previous, _ = self.dataset.load_case(case)
        image = crop_and_pad_nd(image, box, 0).astype(np.float32, copy=False)
        labels = crop_and_pad_nd(segmentation, box, UNKNOWN).astype(np.int16)
        if self.ignore_label is not None:
            labels[labels == self.ignore_label] = UNKNOWN
        if previous is None:
            return image, labels
        return image, np.concatenate((labels, crop_and_pad_nd(previous, box, 0).astype(np.int16)[None]))

    def _class_locations(self, case: str) -> dict[Object, np.ndarray]:
        return class_locations(self.dataset.load_case(case)[3], f"{self.dataset.source_folder}/{case}.pkl")

    def _background(self, case: str) -> np.ndarray:
        # -1 marks what nnU-Net cropped away as empty; only true background (0) is an object.
        return np.argwhere(self.dataset.load_case(case)[1][:][0] == 0)


def objects_to_contrast(dataset: Cases, objects: Sequence[Object]) -> list[Object]:
    """Those that occur in the cases; if that is one alone, the background too, since contrast needs two.

    Args:
        objects: labels or regions, as nnU-Net's label manager gives them.

    Raises:
        InputError: none of them occurs.
    """
    occurring = list(Attention(dataset, objects).centres)
    if not occurring:
        raise InputError(
            dataset.source_folder,
            f"no voxel of any object in the {len(dataset.identifiers)} training cases of the fold",
            f"at least one of {objects}",
            "Check the labels and splits_final.json, or train with -tr nnUNetTrainer.",
        )
    return occurring if len(occurring) > 1 else [*occurring, BACKGROUND]


def _positions(locations: Sequence) -> np.ndarray:
    """nnU-Net's class locations (n, 4), the channel first, as (n, 3)."""
    return np.asarray(locations).reshape(-1, 4)[:, 1:]
