"""Attention: the positions of a case's objects. It gives query centres and cuts patches of image and segmentation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd

from nnunet_semcl.errors import InputError
from nnunet_semcl.files.cases import BACKGROUND, UNKNOWN, Cases, Object, class_locations, subsample

BACKGROUND_DRAWS = 20_000  # the whole background of a CT would be gigabytes of positions


class Attention:
    """The source of queries: where the objects of a data set are, with their images and segmentations.

    Args:
        dataset: the cases to draw from.
        objects: labels, regions or BACKGROUND.
        ignore_label: nnU-Net's label for voxels without annotation, if the data set has one; they become UNKNOWN.

    Attributes:
        centres: object -> case -> (n, 3) int32 voxel positions (x, y, z) in the preprocessed array. It lacks cases
            without the object, and objects that no case shows.

    Raises:
        InputError: a case's properties have no class locations.
    """

    def __init__(self, dataset: Cases, objects: Sequence[Object], ignore_label: int | None = None) -> None:
        self.dataset = dataset
        self.ignore_label = ignore_label
        centres: dict[Object, dict[str, np.ndarray]] = {obj: {} for obj in objects}
        for case in dataset.identifiers:
            locations = self._class_locations(case)
            for obj in objects:
                voxels = self._background(case) if obj == BACKGROUND else _positions(locations.get(obj, ()))
                if len(voxels) > 0:
                    centres[obj][case] = subsample(voxels).astype(np.int32)
        self.centres = {obj: cases for obj, cases in centres.items() if cases}

    def cut(self, case: str, box: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
        """Returns a case's image (C, X, Y, Z) float32 and segmentation (1, X, Y, Z) int16 within a box.

        In a cascade the segmentation is (2, X, Y, Z); the second channel is the previous stage's.

        Args:
            case: the case's name.
            box: [from, to] in voxels for each axis. Outside the case the image is 0 and the segmentation UNKNOWN.
        """
        image, segmentation, previous, _ = self.dataset.load_case(case)
        image = crop_and_pad_nd(image, box, 0).astype(np.float32, copy=False)
        labels = crop_and_pad_nd(segmentation, box, UNKNOWN).astype(np.int16)
        if self.ignore_label is not None:
            labels[labels >= self.ignore_label] = UNKNOWN  # also what may be an object that was not found
        if previous is None:
            return image, labels
        return image, np.concatenate((labels, crop_and_pad_nd(previous, box, 0).astype(np.int16)[None]))

    def _class_locations(self, case: str) -> dict[Object, np.ndarray]:
        return class_locations(self.dataset.load_case(case)[3], f"{self.dataset.source_folder}/{case}.pkl")

    def _background(self, case: str) -> np.ndarray:
        """Returns random background voxels (n, 3)."""
        segmentation = self.dataset.load_case(case)[1][:][0]
        rng = np.random.default_rng(0)
        voxels = rng.integers(0, segmentation.shape, (BACKGROUND_DRAWS, segmentation.ndim))
        # -1 marks voxels that nnU-Net cropped away as empty; only true background (0) is an object.
        return np.unique(voxels[segmentation[tuple(voxels.T)] == 0], axis=0)


def occurring_objects(dataset: Cases, objects: Sequence[Object]) -> list[Object]:
    """Returns the objects that occur in the cases, as far as nnU-Net's properties of the cases say.

    Args:
        dataset: the labelled training cases.
        objects: labels or regions from nnU-Net's label manager.

    Raises:
        InputError: none of the objects occurs.
    """
    centres = Attention(dataset, objects).centres
    occurring = [obj for obj in objects if obj in centres]
    if not occurring:
        raise InputError(
            f"{dataset.source_folder}: no voxel of any object in the {len(dataset.identifiers)} training cases of the "
            f"fold, but at least one of {objects} must occur",
            "Check the labels and splits_final.json, or train with -tr nnUNetTrainer.",
        )
    return occurring


def _positions(locations: npt.ArrayLike) -> np.ndarray:
    """Converts nnU-Net's class locations (n, 4), with the channel first, to (n, 3)."""
    return np.asarray(locations).reshape(-1, 4)[:, 1:]
