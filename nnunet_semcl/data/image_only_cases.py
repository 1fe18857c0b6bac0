"""Unlabelled cases as a data set for nnU-Net's loader: only the images, with an empty segmentation for labels."""

from __future__ import annotations

from pathlib import Path

import blosc2
import numpy as np
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_semcl.data.lazy_segmentation import LazySegmentation
from nnunet_semcl.files.cases import open_case

PLACES = 1000  # voxels of a case that may be patch centres if nnU-Net asks for annotated voxels


class ImageOnlyCases:
    """Cases of which only the image is opened.

    Args:
        images: case -> its preprocessed image without extension.
        labels: nnU-Net's label manager.
        masks_background: whether nnU-Net sets images to 0 outside the body.
    """

    def __init__(self, images: dict[str, Path], labels: LabelManager, masks_background: bool = False) -> None:
        self.images = images
        self.identifiers = list(images)
        self.source_folder = ""
        self.masks_background = masks_background
        self._annotated = (-1, *labels.all_labels) if labels.has_ignore_label else None

    def load_case(self, identifier: str) -> tuple[blosc2.NDArray | np.ndarray, LazySegmentation, None, dict]:
        image = open_case(self.images[identifier])
        locations = {}
        if self._annotated:  # with an ignore label nnU-Net draws patches from annotated voxels: here from all
            places = np.random.default_rng(0).integers(0, image.shape[1:], (PLACES, image.ndim - 1))
            locations[self._annotated] = np.insert(places, 0, 0, axis=1)
        segmentation = LazySegmentation(image, masks_background=self.masks_background)
        return image, segmentation, None, {"class_locations": locations}
