"""Which voxels of a batch are contrasted: as many of each class, half of them where classes meet."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import max_pool2d, max_pool3d

from nnunet_semcl.data.attention import UNKNOWN

MAX_POOL = {2: max_pool2d, 3: max_pool3d}
BOUNDARY_SHARE = 0.5


def sample_voxels(
    segmentations: torch.Tensor, number: int, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draws up to `number` voxels, as many of each class, or all of a class where there are fewer; UNKNOWN is none.

    Shape: segmentations (B, X, Y[, Z]) integers -> positions (V,) int64 in the flattened batch, classes (V,) int64.
    """
    boundary = at_boundary(segmentations).flatten().numpy()
    flat = segmentations.flatten().numpy()
    positions, classes = [], []
    labels = np.unique(flat[flat != UNKNOWN])
    for label in labels:
        per_class = number // len(labels)
        voxels = np.flatnonzero(flat == label)
        at_edge = voxels[boundary[voxels]]
        edge = rng.permutation(at_edge)[: int(per_class * BOUNDARY_SHARE)]
        rest = rng.permutation(np.setdiff1d(voxels, edge, assume_unique=True))[: per_class - len(edge)]
        positions.append(np.concatenate((edge, rest)))
        classes.append(np.full(len(edge) + len(rest), label, np.int64))
    if not positions:
        return torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
    return torch.from_numpy(np.concatenate(positions)), torch.from_numpy(np.concatenate(classes))


def at_boundary(segmentations: torch.Tensor) -> torch.Tensor:
    """Whether another class lies within one voxel: (B, X, Y[, Z]) integers -> the same shape, bool."""
    values = segmentations.float()[:, None]
    pool = MAX_POOL[values.ndim - 2]
    return (pool(values, 3, 1, 1) != -pool(-values, 3, 1, 1))[:, 0]
