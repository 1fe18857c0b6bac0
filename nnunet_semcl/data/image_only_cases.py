"""Unlabelled cases as one of nnU-Net's data sets: images alone, with an empty segmentation in place of labels."""

from __future__ import annotations

from pathlib import Path

import blosc2
import numpy as np
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_semcl.files.cases import open_case

PLACES = 1000  # of a case, where a patch may lie if nnU-Net asks for annotated voxels


class ImageOnlyCases:
    """Cases of which nothing but the image is opened.

    Args:
        images: case -> its preprocessed image without extension.
        labels: nnU-Net's.
    """

    def __init__(self, images: dict[str, Path], labels: LabelManager) -> None:
        self.images = images
        self.identifiers = list(images)
        self.source_folder = None
        self._annotated = (-1, *labels.all_labels) if labels.has_ignore_label else None

    def load_case(self, identifier: str) -> tuple[blosc2.NDArray | np.ndarray, np.ndarray, None, dict]:
        image = open_case(self.images[identifier])
        locations = {}
        if self._annotated:  # with an ignore label nnU-Net draws patches from the annotated voxels: here from all
            places = np.random.default_rng(0).integers(0, image.shape[1:], (PLACES, image.ndim - 1))
            locations[self._annotated] = np.insert(places, 0, 0, axis=1)
        segmentation = np.zeros((1, *image.shape[1:]), np.int16)  # takes no memory until it is written to
        return image, segmentation, None, {"class_locations": locations}
