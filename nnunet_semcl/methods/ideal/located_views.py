"""Two views of a patch, and the locations that both of them show."""

from __future__ import annotations

import numpy as np
import torch
from dynamic_network_architectures.building_blocks.helper import get_matching_pool_op

from nnunet_semcl.data.views import Views

FIT_VOXELS = 500  # number of voxels to which a view's affine map is fitted


class LocatedViews(Views):
    """Views with the source of every voxel: the coordinates are transformed as further channels of the image."""

    def __call__(self, image: torch.Tensor, inside: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Draws one view.

        Args:
            image: patch (C, *cut_size) float32, cut from a case.
            inside: (1, *cut_size) bool, whether a voxel of the patch is inside the case.

        Returns:
            The view (C, *size), the source of each of its voxels in voxels of the patch (axes, *size), and whether
            that source is inside the case (*size) bool.
        """
        axes = [torch.arange(edge, dtype=torch.float32) for edge in image.shape[1:]]
        coordinates = torch.stack(torch.meshgrid(*axes, indexing="ij"))
        seen = self._geometry(image=torch.cat((image, coordinates, inside.float())))["image"]
        view, source, certain = seen.split((len(image), len(axes), 1))
        # Next to the case's border, interpolation has falsified the coordinates too.
        return self._intensities(image=view)["image"], source, certain[0] > 0.999


def shared_locations(
    first: tuple[torch.Tensor, torch.Tensor],
    second: tuple[torch.Tensor, torch.Tensor],
    number: int,
    rng: np.random.Generator,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draws up to `number` voxels of the first view that the second view shows too.

    Args:
        first: sources (axes, *size) and whether they are inside the case (*size), from LocatedViews.
        second: the same of the second view.
        number: largest number of voxels.
        rng: draws the voxels.

    Returns:
        Voxels of the first view (n, axes) int64, their places in the second view (n, axes) float32 in voxels of its
        grid, and their sources (n, axes) float32.
    """
    source, inside = first
    size = torch.tensor(second[1].shape)
    voxels = inside.nonzero()
    voxels = voxels[torch.from_numpy(rng.permutation(len(voxels))[: 20 * number])]
    sources = _sources_at(source, voxels)
    geometry = _geometry_of(*second, rng)
    if geometry is None:
        return voxels[:0], sources[:0], sources[:0]
    places = ((sources.double() - geometry[-1]) @ torch.linalg.inv(geometry[:-1])).float()
    nearest = places.round().long()
    seen = ((nearest >= 0) & (nearest < size)).all(dim=1)
    # Features are interpolated between voxels, so the neighbours of a place have to be inside too.
    pool = get_matching_pool_op(dimension=len(size), pool_type="max")(3, stride=1, padding=1)
    near_outside = pool((~second[1]).float()[None, None])[0, 0] > 0
    seen[seen.clone()] = ~near_outside[tuple(nearest[seen].T)]
    return voxels[seen][:number], places[seen][:number], sources[seen][:number]


def _geometry_of(source: torch.Tensor, inside: torch.Tensor, rng: np.random.Generator) -> torch.Tensor | None:
    """Returns the affine map from a view's voxels to their sources, (axes + 1, axes) float64 with the shift last.

    Rotation, scaling, shift and mirroring are affine, so a fit to a few voxels is exact. Returns None if too few
    voxels are inside the case for a fit.
    """
    voxels = inside.nonzero()
    voxels = voxels[torch.from_numpy(rng.permutation(len(voxels))[:FIT_VOXELS])]
    known = torch.cat((voxels.double(), torch.ones(len(voxels), 1, dtype=torch.float64)), dim=1)
    if not len(voxels) or torch.linalg.matrix_rank(known) < known.shape[1]:
        return None
    return torch.linalg.lstsq(known, _sources_at(source, voxels).double()).solution


def _sources_at(source: torch.Tensor, voxels: torch.Tensor) -> torch.Tensor:
    """(axes, *size), (n, axes) -> (n, axes)."""
    index = (slice(None), *voxels.T)
    return source[index].T
