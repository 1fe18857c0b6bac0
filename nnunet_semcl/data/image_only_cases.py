"""Unlabelled cases as a data set for nnU-Net's loader: images, with an empty segmentation in place of labels."""

from __future__ import annotations

from pathlib import Path

import blosc2
import numpy as np
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_semcl.files.cases import Object, open_case

PLACES = 1000  # per case: patch centres for nnU-Net's loader, if it asks for annotated voxels


class ImageOnlyCases:
    """Cases that have only an image. No label file or properties are opened.

    Args:
        images: case -> its preprocessed image without extension.
        labels: nnU-Net's label manager.
    """

    def __init__(self, images: dict[str, Path], labels: LabelManager) -> None:
        self.images = images
        self.identifiers = list(images)
        self.source_folder = ""  # images may come from several folders
        self._annotated = (-1, *labels.all_labels) if labels.has_ignore_label else None

    def load_case(self, identifier: str) -> tuple[blosc2.NDArray | np.ndarray, np.ndarray, None, dict]:
        image = open_case(self.images[identifier])
        locations: dict[Object, np.ndarray] = {}
        # With an ignore label nnU-Net centres patches on annotated voxels; here any voxel may be a centre.
        if self._annotated:
            places = np.random.default_rng(0).integers(0, image.shape[1:], (PLACES, image.ndim - 1))
            locations[self._annotated] = np.insert(places, 0, 0, axis=1)
        segmentation = np.zeros((1, *image.shape[1:]), np.int16)  # zeros use no memory until they are written to
        return image, segmentation, None, {"class_locations": locations}
