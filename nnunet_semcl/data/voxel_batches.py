"""Voxels to contrast: sampled from training patches, as many of each class, half of them where classes meet."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.functional import max_pool2d, max_pool3d
from torch.utils.data import Dataset

from nnunet_semcl.data.attention import UNKNOWN
from nnunet_semcl.data.seeding import seeded
from nnunet_semcl.data.training_batches import TrainingBatches

MAX_POOL = {2: max_pool2d, 3: max_pool3d}
BOUNDARY_SHARE = 0.5


class VoxelBatches(Dataset):
    """Training patches with sampled voxels, number i a function of the patches' seed and i alone.

    Args:
        patches: with labels as target.
        voxels: how many are sampled from a batch.
        ignore_label: of voxels that nobody annotated; they are not sampled, as those that are UNKNOWN.
    """

    def __init__(self, patches: TrainingBatches, voxels: int, ignore_label: int | None) -> None:
        self.patches = patches
        self.voxels = voxels
        self.unknown = [UNKNOWN] if ignore_label is None else [UNKNOWN, ignore_label]

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        """patch (B, C, X, Y[, Z]) float32; of V voxels: voxel (V,) int64, positions in the flattened (B, X, Y[, Z]),
        and voxel_class (V,) int64, labels."""
        batch = self.patches[number]
        with seeded(self.patches.seed, number) as rng:
            voxel, label = sample_voxels(batch["target"][:, 0], self.voxels, rng, self.unknown)
        return {"patch": batch["image"], "voxel": voxel, "voxel_class": label}


def sample_voxels(
    segmentations: torch.Tensor, number: int, rng: np.random.Generator, unknown: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draws up to `number` voxels, as many of each class, or all of a class where there are fewer; no unknown ones.

    Shape: segmentations (B, X, Y[, Z]) integers -> positions (V,) int64 in the flattened batch, classes (V,) int64.
    """
    boundary = at_boundary(segmentations).flatten().numpy()
    flat = segmentations.flatten().numpy()
    positions, classes = [], []
    labels = np.setdiff1d(flat, unknown)
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
