"""Voxels to contrast: sampled from training patches, as many of each class, half of them where classes meet."""

from __future__ import annotations

import numpy as np
import torch
from dynamic_network_architectures.building_blocks.helper import get_matching_pool_op
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch.utils.data import Dataset

from nnunet_semcl.data.seeding import seeded
from nnunet_semcl.data.training_batches import TrainingBatches
from nnunet_semcl.files.cases import UNKNOWN
from nnunet_semcl.losses.deep_supervision import levels_of

BOUNDARY_SHARE = 0.5


class VoxelBatches(Dataset):
    """Training patches with sampled voxels, number i a function of the patches' seed and i alone.

    Args:
        patches: nnU-Net's.
        voxels: how many are sampled from a batch.
        labels: nnU-Net's, which say what a target means.
    """

    def __init__(self, patches: TrainingBatches, voxels: int, labels: LabelManager) -> None:
        self.patches = patches
        self.voxels = voxels
        self.labels = labels

    def __getitem__(self, number: int) -> dict[str, torch.Tensor | list[torch.Tensor]]:
        """patch (P, C, X, Y[, Z]) float32, and its target as nnU-Net has it; of V voxels: voxel (V,) int64, positions
        in the flattened (P, X, Y[, Z]), and voxel_class (V,) int64."""
        batch = self.patches[number]
        classes = voxel_classes(levels_of(batch["target"])[0], self.labels)
        with seeded(self.patches.seed, number) as rng:
            voxel, voxel_class = sample_voxels(classes, self.voxels, rng)
        return {"patch": batch["image"], "target": batch["target"], "voxel": voxel, "voxel_class": voxel_class}


def voxel_classes(target: torch.Tensor, labels: LabelManager) -> torch.Tensor:
    """A class for each voxel: its label, or where there are regions, which of them it lies in, as bits of a number.

    What the data set's ignore label covers is UNKNOWN.

    Shape: a target of nnU-Net's at full resolution, labels (P, 1, ...) or regions (P, R, ...) -> (P, ...) int16.
    """
    if not labels.has_regions:
        classes = target[:, 0].short()
        return classes if labels.ignore_label is None else classes.masked_fill(classes == labels.ignore_label, UNKNOWN)
    regions = len(labels.foreground_regions)  # behind them, where there is an ignore label, what it covers
    bits = 2 ** torch.arange(regions).view(-1, *[1] * (target.ndim - 2))
    classes = (target[:, :regions] * bits).sum(dim=1).short()
    return classes.masked_fill(target[:, regions:].any(dim=1), UNKNOWN)


def sample_voxels(
    segmentations: torch.Tensor, number: int, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draws up to `number` voxels, as many of each class, or all of a class where there are fewer; UNKNOWN is none.

    Shape: segmentations (B, X, Y[, Z]) integers -> positions (V,) int64 in the flattened batch, classes (V,) int64.
    """
    boundary = at_boundary(segmentations).flatten().numpy()
    flat = segmentations.flatten().numpy()
    positions, classes = [], []
    labels = np.setdiff1d(flat, UNKNOWN)
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
    pool = get_matching_pool_op(dimension=values.ndim - 2, pool_type="max")(3, stride=1, padding=1)
    return (pool(values) != -pool(-values))[:, 0]
