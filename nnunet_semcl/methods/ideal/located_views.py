"""Two views of a patch, and the locations that both of them show."""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import numpy as np
import torch

from nnunet_semcl.data.views import Views

CANDIDATES = 64  # times as many voxels are drawn as are wanted: two turned views share a part of them


class Box(NamedTuple):
    """First and last voxel of a patch that are inside the case, along each axis: (axes,) each."""

    first: torch.Tensor
    last: torch.Tensor

    def holds(self, sources: torch.Tensor) -> torch.Tensor:
        """Whether places of the patch are inside, so that interpolation sees the case alone: (..., axes) -> (...)."""
        rounding = 1e-3
        return ((sources >= self.first - rounding) & (sources <= self.last + rounding)).all(dim=-1)


class Geometry(NamedTuple):
    """The affine map from a view's voxels to the voxels of the patch that they were taken from."""

    matrix: torch.Tensor  # (axes, axes) float64
    shift: torch.Tensor  # (axes,) float64
    size: torch.Tensor  # (axes,) int64, of the view

    def sources(self, voxels: torch.Tensor) -> torch.Tensor:
        """Where voxels of the view were taken from: (..., axes) -> (..., axes) float64."""
        return voxels.double() @ self.matrix + self.shift

    def places(self, sources: torch.Tensor) -> torch.Tensor:
        """The inverse, between voxel centres."""
        return (sources - self.shift) @ torch.linalg.inv(self.matrix)


class LocatedViews(Views):
    """Views that know where they were taken from."""

    def __call__(self, image: torch.Tensor) -> tuple[torch.Tensor, Geometry]:
        """Draws one view of a patch (C, *cut_size) float32: the view (C, *size) and its geometry."""
        axes = len(self.size)
        geometry = Geometry(torch.eye(axes).double(), torch.zeros(axes).double(), torch.tensor(self.size))
        seen = {"image": image}
        for transform in self._geometry.transforms:
            drawn = transform.get_parameters(**seen)
            if "grid" in drawn:
                geometry = _sampled(geometry, drawn["grid"], seen["image"].shape[1:])
            if "axes" in drawn:
                geometry = _mirrored(geometry, drawn["axes"])
            seen = transform.apply(seen, **drawn)
        return self._intensities(image=seen["image"])["image"], geometry


def _sampled(geometry: Geometry, grid: torch.Tensor, shape: torch.Size) -> Geometry:
    """With the affine map of a grid for grid_sample, (x, y[, z], axes), over the last axes of an image."""
    edges = torch.tensor(shape)
    places = ((grid.double().flip(-1) + 1) * edges - 1) / 2  # grid_sample has reversed axes, -1 and 1 at outer edges
    matrix, shift = geometry.matrix.clone(), geometry.shift.clone()
    first = len(matrix) - len(edges)  # with nnU-Net's dummy 2D, the first axis stays
    start = places[(0,) * len(edges)]
    for axis, number in enumerate(grid.shape[:-1]):
        end = places.select(axis, number - 1)[(0,) * (len(edges) - 1)]
        matrix[first + axis, first:] = (end - start) / max(1, number - 1)
    shift[first:] = start
    return geometry._replace(matrix=matrix, shift=shift)


def _mirrored(geometry: Geometry, axes: list[int]) -> Geometry:
    shift, matrix = geometry.shift.clone(), geometry.matrix.clone()
    for axis in axes:
        shift += (geometry.size[axis] - 1) * matrix[axis]
        matrix[axis] *= -1
    return geometry._replace(matrix=matrix, shift=shift)


def shared_locations(
    first: Geometry, second: Geometry, inside: Box, number: int, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draws up to `number` voxels of the first view that the second view shows too.

    Args:
        first: of the first view.
        second: of the second view.
        inside: the part of the patch that is inside the case.
        number: largest number of voxels.
        rng: draws the voxels.

    Returns:
        Voxels of the first view (n, axes) int64, their places in the second view (n, axes) float32 in voxels of its
        grid, and their sources in the patch (n, axes) float32.
    """
    volume = int(first.size.prod())
    drawn = rng.choice(volume, min(volume, CANDIDATES * number), replace=False)
    voxels = torch.from_numpy(np.stack(np.unravel_index(drawn, first.size.tolist()), axis=1))
    sources = first.sources(voxels)
    places = second.places(sources)
    nearest = places.round().long()
    seen = inside.holds(sources) & ((nearest >= 0) & (nearest < second.size)).all(dim=1)
    # Features are interpolated between voxels, so the neighbours of a place have to be inside too: as the case is a
    # box, the outermost ones.
    for step in product((-1, 1), repeat=len(second.size)):
        neighbours = (nearest + torch.tensor(step)).clamp(min=0).minimum(second.size - 1)
        seen &= inside.holds(second.sources(neighbours))
    return voxels[seen][:number], places[seen][:number].float(), sources[seen][:number].float()
