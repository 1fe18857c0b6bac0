"""Two views of a patch, and the places that both of them show."""

from __future__ import annotations

import numpy as np
import torch
from dynamic_network_architectures.building_blocks.helper import get_matching_pool_op

from nnunet_semcl.data.views import Views

FIT_VOXELS = 500  # from which a view's geometry is read


class LocatedViews(Views):
    """Views whose voxels know where they come from: their coordinates go through the geometry as further channels."""

    def __call__(self, image: torch.Tensor, inside: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """One view.

        Shape: image (C, *cut_size) float32 and inside (1, *cut_size) bool, where the cut lies in the case -> the view
        (C, *size), the source of each of its voxels in voxels of the cut (axes, *size), and whether that is inside
        (*size) bool.
        """
        axes = [torch.arange(edge, dtype=torch.float32) for edge in image.shape[1:]]
        coordinates = torch.stack(torch.meshgrid(*axes, indexing="ij"))
        seen = self._geometry(image=torch.cat((image, coordinates, inside.float())))["image"]
        view, source, certain = seen.split((len(image), len(axes), 1))
        # Where a neighbour lies beyond the case, interpolation has spoilt the coordinates too.
        return self._intensities(image=view)["image"], source, certain[0] > 0.999


def shared_locations(
    first: tuple[torch.Tensor, torch.Tensor],
    second: tuple[torch.Tensor, torch.Tensor],
    number: int,
    rng: np.random.Generator,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draws up to `number` voxels of the first view that the second shows too.

    Args:
        first, second: of each view the sources (axes, *size) and where they are inside (*size), as LocatedViews says.

    Shape: returns voxels of the first view (n, axes) int64, their places in the second (n, axes) float32 in voxels of
    its grid, and their sources (n, axes) float32.
    """
    source, inside = first
    size = torch.tensor(second[1].shape)
    voxels = inside.nonzero()
    voxels = voxels[torch.from_numpy(rng.permutation(len(voxels))[: 20 * number])]
    sources = source[(slice(None), *voxels.T)].T
    geometry = _geometry_of(*second, rng)
    if geometry is None:
        return voxels[:0], sources[:0], sources[:0]
    places = ((sources.double() - geometry[-1]) @ torch.linalg.inv(geometry[:-1])).float()
    nearest = places.round().long()
    seen = ((nearest >= 0) & (nearest < size)).all(dim=1)
    # The place's neighbours have to be inside too, since features are read between voxels.
    pool = get_matching_pool_op(dimension=len(size), pool_type="max")(3, stride=1, padding=1)
    near_outside = pool((~second[1]).float()[None, None])[0, 0] > 0
    seen[seen.clone()] = ~near_outside[tuple(nearest[seen].T)]
    return voxels[seen][:number], places[seen][:number], sources[seen][:number]


def _geometry_of(source: torch.Tensor, inside: torch.Tensor, rng: np.random.Generator) -> torch.Tensor | None:
    """The affine map from a view's voxels to their sources, (axes + 1, axes) float64 with the shift last.

    None where too little is inside to tell it. Rotation, scaling, shift and mirroring are affine, so that a few
    voxels tell it exactly.
    """
    voxels = inside.nonzero()
    voxels = voxels[torch.from_numpy(rng.permutation(len(voxels))[:FIT_VOXELS])]
    known = torch.cat((voxels.double(), torch.ones(len(voxels), 1, dtype=torch.float64)), dim=1)
    if not len(voxels) or torch.linalg.matrix_rank(known) < known.shape[1]:
        return None
    return torch.linalg.lstsq(known, source[(slice(None), *voxels.T)].T.double()).solution
