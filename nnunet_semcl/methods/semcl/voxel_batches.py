"""Voxels to contrast: sampled from training patches, equally many per class, half of them at class boundaries."""

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
    """Training patches with sampled voxels; batch number i depends only on the patches' seed and i.

    Args:
        patches: nnU-Net's training batches.
        voxels: number of voxels sampled from a batch.
        labels: nnU-Net's label manager.
    """

    def __init__(self, patches: TrainingBatches, voxels: int, labels: LabelManager) -> None:
        self.patches = patches
        self.voxels = voxels
        self.labels = labels

    def __getitem__(self, number: int) -> dict[str, torch.Tensor | list[torch.Tensor]]:
        """Draws batch number `number`, of P patches with V voxels in total.

        Shape:
            patch: (P, C, X, Y[, Z]) float32.
            target: nnU-Net's, one tensor or a list of levels.
            voxel: (V,) int64, positions in the flattened (P, X, Y[, Z]).
            voxel_class: (V,) int64.
        """
        batch = self.patches[number]
        classes = voxel_classes(levels_of(batch["target"])[0], self.labels)
        with seeded(self.patches.seed, number) as rng:
            voxel, voxel_class = sample_voxels(classes, self.voxels, rng)
        return {"patch": batch["image"], "target": batch["target"], "voxel": voxel, "voxel_class": voxel_class}


def voxel_classes(target: torch.Tensor, labels: LabelManager) -> torch.Tensor:
    """Returns a class for each voxel: its label or, with regions, the set of regions it belongs to as a bit mask.

    Voxels with the data set's ignore label are UNKNOWN.

    Shape: nnU-Net's target at full resolution, labels (P, 1, ...) or regions (P, R, ...) -> (P, ...) int64.
    """
    if not labels.has_regions:
        classes = target[:, 0].long()
        return classes if labels.ignore_label is None else classes.masked_fill(classes == labels.ignore_label, UNKNOWN)
    regions = len(labels.foreground_regions)  # an ignore label adds one more channel
    bits = 2 ** torch.arange(regions).view(-1, *[1] * (target.ndim - 2))
    classes = (target[:, :regions] * bits).sum(dim=1).long()
    return classes.masked_fill(target[:, regions:].any(dim=1), UNKNOWN)


def sample_voxels(
    segmentations: torch.Tensor, number: int, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draws up to `number` voxels, equally many per class; a class with fewer voxels gives all of them.

    Each class gets at least two, a pair to contrast: if `number` is too small for that, it draws some of the classes.
    UNKNOWN is not a class.

    Shape: segmentations (B, X, Y[, Z]) integers -> positions (V,) int64 in the flattened batch, classes (V,) int64.
    """
    boundary = at_boundary(segmentations).flatten().numpy()
    flat = segmentations.flatten().numpy()
    positions, classes = [], []
    labels = np.setdiff1d(flat, UNKNOWN)
    if 2 * len(labels) > number:
        labels = np.sort(rng.choice(labels, number // 2, replace=False))
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
    """Returns whether a voxel has a neighbour of another class: (B, X, Y[, Z]) integers -> the same shape, bool."""
    values = segmentations.float()[:, None]
    pool = get_matching_pool_op(dimension=values.ndim - 2, pool_type="max")(3, stride=1, padding=1)
    return (pool(values) != -pool(-values))[:, 0]
