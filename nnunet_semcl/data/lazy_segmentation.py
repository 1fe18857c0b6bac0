"""Segmentations of unlabelled cases, made patch by patch when nnU-Net's loader reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nnunet_semcl.files.cases import UNKNOWN, Voxels

# Probabilities from which a pseudo-label supervises, and its voxel may be the centre of a patch. Of background more is
# asked: it is most of an image, so that even the part of an object that a model misses is often background at 0.9.
CONFIDENT, CONFIDENT_BACKGROUND = 0.9, 0.99
FULL = 255  # stands for probability 1 in the files
EMPTY = 1e-3  # in units of nnU-Net's normalised images, which are 0 outside the body


class LazySegmentation:
    """A segmentation that is computed for the voxels that are read.

    Args:
        image: (C, X, Y, Z), preprocessed.
        labels: pseudo-labels (1, X, Y, Z); None for background everywhere.
        confidence: of the pseudo-labels, (1, X, Y, Z) uint8, FULL for probability 1.
        ignore_label: marks voxels that do not supervise, since they are not confident enough.
        unknown: labels of objects that were not found: these voxels do not supervise either.
        background: label of background voxels; another than 0 if they may be an object that was not found.
        masks_background: whether the voxels outside the body are -1, as in nnU-Net's own segmentations. nnU-Net then
            sets the image to 0 there after augmentation; otherwise a network could tell unlabelled patches by their
            background.
    """

    def __init__(
        self,
        image: Voxels,
        labels: Voxels | None = None,
        confidence: Voxels | None = None,
        ignore_label: int | None = None,
        unknown: Sequence[int] = (),
        background: int = 0,
        masks_background: bool = False,
    ) -> None:
        self.image, self.labels, self.confidence = image, labels, confidence
        self.ignore_label = ignore_label
        self.unknown = unknown
        self.background = background
        self.masks_background = masks_background
        self.shape = (1, *image.shape[1:])
        self.ndim = len(self.shape)
        self.dtype = np.dtype(np.int16)

    def __getitem__(self, box: Any) -> np.ndarray:
        """Returns the labels in a box, as int16."""
        labels = np.array(np.broadcast_to(np.int16(0), self.shape)[box] if self.labels is None else self.labels[box])
        if self.confidence is not None:
            confidence = np.asarray(self.confidence[box])
            unsure = confidence < CONFIDENT * FULL
            unsure |= (labels == 0) & (confidence < CONFIDENT_BACKGROUND * FULL)
            labels[unsure | np.isin(labels, self.unknown)] = self.ignore_label
            labels[labels == 0] = self.background
        if self.masks_background:
            labels[(np.abs(np.asarray(self.image[box])) < EMPTY).all(0, keepdims=True)] = UNKNOWN
        return labels
