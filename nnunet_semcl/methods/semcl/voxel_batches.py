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
            target, missing: see TrainingBatches.
            voxel: (V,) int64, positions in the flattened (P, X, Y[, Z]).
            voxel_class: (V,) int64.
            at_boundary: (V,) bool, whether a neighbour has another class.
        """
        batch = self.patches[number]
        classes = voxel_classes(levels_of(batch["target"])[0], self.labels)
        with seeded(self.patches.seed, number) as rng:
            voxel, voxel_class, boundary = sample_voxels(classes, self.voxels, rng)
        return {
            "patch": batch["image"],
            "target": batch["target"],
            "missing": batch["missing"],
            "voxel": voxel,
            "voxel_class": voxel_class,
            "at_boundary": boundary,
        }


def voxel_classes(target: torch.Tensor, labels: LabelManager) -> torch.Tensor:
    """Returns a class for each voxel: its label or, with regions, the set of regions it belongs to as a bit mask.

    Voxels with the ignore label, and those that may be an object that was not found, are UNKNOWN.

    Shape: nnU-Net's target at full resolution, labels (P, 1, ...) or regions (P, R, ...) -> (P, ...) int64.
    """
    if not labels.has_regions:
        classes = target[:, 0].long()
        return classes if labels.ignore_label is None else classes.masked_fill(classes >= labels.ignore_label, UNKNOWN)
    regions = len(labels.foreground_regions)  # an ignore label adds channels
    bits = 2 ** torch.arange(regions).view(-1, *[1] * (target.ndim - 2))
    classes = (target[:, :regions] * bits).sum(dim=1).long()
    return classes.masked_fill(target[:, regions:].any(dim=1), UNKNOWN)


def possible_classes(labels: LabelManager) -> torch.Tensor:
    """Returns all values that `voxel_classes` may give for a data set's labels, ascending: (K,) int64."""
    values = [int(label) for label in labels.all_labels]  # with the background
    if labels.has_regions:
        regions = [set(np.ravel(region).tolist()) for region in labels.foreground_regions]
        values = [sum(2**bit for bit, region in enumerate(regions) if label in region) for label in values]
    return torch.tensor(sorted(set(values)))


def sample_voxels(
    segmentations: torch.Tensor, number: int, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draws up to `number` voxels, equally many per class; a class with fewer voxels gives all of them.

    Each class gets at least two, a pair to contrast: if `number` is too small for that, it draws some of the classes.
    UNKNOWN is not a class.

    Shape: segmentations (B, X, Y[, Z]) integers -> positions (V,) int64 in the flattened batch, classes (V,) int64, and
    whether they are at a boundary, (V,) bool.
    """
    boundary = at_boundary(segmentations).flatten().numpy()
    flat = segmentations.flatten().numpy()
    positions, classes = [], []
    labels = segmentations.unique().numpy()
    labels = labels[labels != UNKNOWN]
    if 2 * len(labels) > number:
        labels = np.sort(rng.choice(labels, number // 2, replace=False))
    for label in labels:
        per_class = number // len(labels)
        voxels = np.flatnonzero(flat == label)
        edge = _draw(voxels[boundary[voxels]], int(per_class * BOUNDARY_SHARE), rng)
        others = _draw(voxels, per_class, rng)  # so many that enough are left without those drawn twice
        rest = others[~np.isin(others, edge)][: per_class - len(edge)]
        positions.append(np.concatenate((edge, rest)))
        classes.append(np.full(len(edge) + len(rest), label, np.int64))
    if not positions:
        none = torch.empty(0, dtype=torch.int64)
        return none, none, none.bool()
    drawn = np.concatenate(positions)
    return torch.from_numpy(drawn), torch.from_numpy(np.concatenate(classes)), torch.from_numpy(boundary[drawn])


def _draw(voxels: np.ndarray, number: int, rng: np.random.Generator) -> np.ndarray:
    """Draws up to `number` of the voxels, none of them twice."""
    return rng.choice(voxels, min(number, len(voxels)), replace=False)


def at_boundary(segmentations: torch.Tensor) -> torch.Tensor:
    """Returns whether a voxel has a neighbour of another class: (B, X, Y[, Z]) integers -> the same shape, bool."""
    values = segmentations.float()[:, None]
    pool = get_matching_pool_op(dimension=values.ndim - 2, pool_type="max")(3, stride=1, padding=1)
    return (pool(values) != -pool(-values))[:, 0]
