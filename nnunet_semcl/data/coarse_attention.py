"""Attention from a coarse model's predictions, for cases whose labels are unknown or hidden."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import blosc2
import numpy as np
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_semcl.data.attention import UNKNOWN, Attention, Object, labels_of, thin_out

FEWEST_VOXELS = 50  # the paper's: what a coarse model finds of an object below that is not trusted
CONFIDENT = 0.9
FULL = 255  # probability 1 in the files


class CoarseAttention(Attention):
    """Soft masks that a coarse model predicted, read from files.

    Args:
        images: case -> its preprocessed image without extension. Beside it lie a label file and properties, which
            are never opened.
        folder: where `save_soft_masks` put the cases' predictions.
        objects: labels or regions.
        labels: nnU-Net's, which say how probabilities become a segmentation.

    Attributes:
        skipped: object -> number of cases in which the model found fewer than FEWEST_VOXELS confident voxels of it.
    """

    def __init__(self, images: dict[str, Path], folder: Path, objects: list[Object], labels: LabelManager) -> None:
        self.images = images
        self.folder = folder
        self.labels = labels
        self.centres = {o: {} for o in objects}
        self.skipped: Counter[Object] = Counter()
        for case in images:
            segmentation = self._segmentation(open_case(folder / case)[:])
            for o in objects:
                voxels = np.argwhere(np.isin(segmentation, labels_of(o)))
                if len(voxels) < FEWEST_VOXELS:
                    self.skipped[o] += 1
                else:
                    self.centres[o][case] = thin_out(voxels)
        self.centres = {o: cases for o, cases in self.centres.items() if cases}

    def cut(self, case: str, box: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
        image = crop_and_pad_nd(open_case(self.images[case]), box, 0).astype(np.float32, copy=False)
        # 0 for every class is what no model says: beyond the case nothing is known.
        return image, self._segmentation(crop_and_pad_nd(open_case(self.folder / case), box, 0))[None]

    def _segmentation(self, soft: np.ndarray) -> np.ndarray:
        """Soft masks (heads, X, Y, Z) uint8 -> labels (X, Y, Z) int16, UNKNOWN where the model is not confident."""
        regions = self.labels.has_regions
        certainty = np.maximum(soft, FULL - soft).min(0) if regions else soft.max(0)
        # Of labels nnU-Net takes the largest, in bytes as well as in floats, which would need four times the memory.
        segmentation = self.labels.convert_probabilities_to_segmentation(soft / FULL if regions else soft)
        return np.where(certainty >= CONFIDENT * FULL, np.asarray(segmentation), UNKNOWN).astype(np.int16)


def save_soft_masks(probabilities: np.ndarray, file: Path) -> None:
    """Keeps a case's probabilities (heads, X, Y, Z), from 0 to 1, as `file`.b2nd, in steps of 1/255."""
    temporary = file.with_name(f".{file.name}.b2nd")
    temporary.unlink(missing_ok=True)
    blosc2.asarray(np.rint(probabilities * FULL).astype(np.uint8), urlpath=str(temporary))
    os.replace(temporary, file.with_name(f"{file.name}.b2nd"))


def has_image(file: Path) -> bool:
    return any(file.with_name(f"{file.name}.{ending}").is_file() for ending in ("b2nd", "npz"))


def open_case(file: Path) -> blosc2.NDArray | np.ndarray:
    compressed = file.with_name(f"{file.name}.b2nd")
    if compressed.is_file():
        return blosc2.open(str(compressed), mode="r", dparams={"nthreads": 1})
    return np.load(file.with_name(f"{file.name}.npz"))["data"]
