"""Where in its case a voxel of a patch is: places travel through nnU-Net's augmentation with the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform

from nnunet_semcl.files.cases import Voxels

Box = tuple[Sequence[int], Sequence[int]]

CHANNELS = 4  # three coordinates, and whether the voxel is in the body
INSIDE = 0.999  # of the interpolated last channel
DARK = 0.3  # above a case's minimum, in units of nnU-Net's normalised images, is not in the body: air with its noise
FEWEST = 0.02  # share of a plane's voxels with which the body begins


class Body(NamedTuple):
    """Where in a case the body is, to which places are relative: patients and fields of view differ in size."""

    first: tuple[float, ...]  # (3,), voxels
    size: tuple[float, ...]  # (3,)
    dark: float  # intensity of the first channel up to which a voxel is not in the body

    @classmethod
    def of_case(cls, image: Voxels) -> Body:
        """Finds it in a preprocessed image (C, X, Y, Z)."""
        channel = image[0]
        dark = float(channel.min()) + DARK
        body = channel > dark
        first, size = [], []
        for axis in range(3):
            share = body.mean(tuple(other for other in range(3) if other != axis))
            planes = np.flatnonzero(share > FEWEST)
            start, end = (planes[0], planes[-1] + 1) if len(planes) else (0, len(share))
            first.append(float(start))
            size.append(float(end - start))
        return cls(tuple(first), tuple(size), dark)


class WithPlaces:
    """nnU-Net's augmentation; the places of an image's voxels, augmented alike, are appended as further channels.

    Args:
        transforms: nnU-Net's.
    """

    def __init__(self, transforms: BasicTransform) -> None:
        self.transforms = transforms

    def next_is(self, box: Box, shape: Sequence[int], body: Body) -> None:
        """Says where the next image is from: a box in a case of this shape."""
        self._places = places_in_box(box, shape, body)
        self._dark = body.dark

    def __call__(self, image: torch.Tensor, segmentation: torch.Tensor) -> dict[str, torch.Tensor]:
        places = self._places.view(CHANNELS, *image.shape[1:])  # in 2D without the axis of slices
        places[-1] *= image[0] > self._dark
        # The spatial transforms treat a regression target like an image, the intensity transforms ignore it.
        views = self.transforms(image=image, segmentation=segmentation, regression_target=places)
        return {**views, "image": torch.cat((views["image"], views["regression_target"]))}


def places_in_box(box: Box, shape: Sequence[int], body: Body) -> torch.Tensor:
    """Returns where in the body the voxels of a box are, from 0 to 1 along each axis, and whether they are in the case.

    Shape: (CHANNELS, x, y, z) float32, for the first voxel of the box and the one behind its last, (3,) each.
    """
    centres = [torch.arange(first, end) + 0.5 for first, end in zip(*box, strict=True)]
    inside = torch.stack(
        torch.meshgrid([(c > 0) & (c < size) for c, size in zip(centres, shape, strict=True)], indexing="ij")
    ).all(0, keepdim=True)
    places = [(c - first) / size for c, first, size in zip(centres, body.first, body.size, strict=True)]
    return torch.cat((torch.stack(torch.meshgrid(places, indexing="ij")), inside)).float()


def sample_places(places: torch.Tensor, number: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Draws up to `number` voxels of the body.

    Shape: (B, CHANNELS, X, Y[, Z]) -> positions (V,) int64 in the flattened (B, X, Y[, Z]), and places (V, 3).
    """
    inside = torch.nonzero(places[:, -1].reshape(-1) > INSIDE)[:, 0]
    voxel = inside[torch.from_numpy(rng.permutation(len(inside))[:number])]
    return voxel, places[:, :-1].movedim(1, -1).reshape(-1, CHANNELS - 1)[voxel]
