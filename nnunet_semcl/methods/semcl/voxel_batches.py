"""Voxels to contrast: sampled from training patches, equally many per class, half of them at class boundaries."""

from __future__ import annotations

from itertools import product

import numpy as np
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch.utils.data import Dataset

from nnunet_semcl.data.seeding import seeded
from nnunet_semcl.data.training_batches import TrainingBatches
from nnunet_semcl.files.cases import UNKNOWN
from nnunet_semcl.losses.deep_supervision import levels_of

BOUNDARY_SHARE = 0.5
CANDIDATES = 32  # at a boundary are some per cent of a large organ's voxels
MOST_COUNTED = 2**16


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
    UNKNOWN is not a class. Boundaries are looked for among CANDIDATES times as many voxels as a class gives.

    Shape: segmentations (B, X, Y[, Z]) integers -> positions (V,) int64 in the flattened batch, classes (V,) int64, and
    whether they are at a boundary, (V,) bool.
    """
    volume = segmentations.numpy()
    flat = volume.reshape(-1)
    positions, classes = [], []
    labels = _values(flat)
    labels = labels[labels != UNKNOWN]
    if 2 * len(labels) > number:
        labels = np.sort(rng.choice(labels, number // 2, replace=False))
    for label in labels:
        per_class = number // len(labels)
        voxels = np.flatnonzero(flat == label)
        candidates = _draw(voxels, CANDIDATES * per_class, rng)
        edge = candidates[at_boundary(volume, candidates)][: int(per_class * BOUNDARY_SHARE)]
        others = _draw(voxels, per_class, rng)  # so many that enough are left without those drawn twice
        rest = others[~np.isin(others, edge)][: per_class - len(edge)]
        positions.append(np.concatenate((edge, rest)))
        classes.append(np.full(len(edge) + len(rest), label, np.int64))
    if not positions:
        none = torch.empty(0, dtype=torch.int64)
        return none, none, none.bool()
    drawn = np.concatenate(positions)
    of_class, boundary = np.concatenate(classes), at_boundary(volume, drawn)
    return torch.from_numpy(drawn), torch.from_numpy(of_class), torch.from_numpy(boundary)


def _draw(voxels: np.ndarray, number: int, rng: np.random.Generator) -> np.ndarray:
    """Draws up to `number` of the voxels, none of them twice."""
    return rng.choice(voxels, min(number, len(voxels)), replace=False)


def _values(array: np.ndarray) -> np.ndarray:
    """The values of an array of integers, ascending; few small ones are counted, which is faster than sorting."""
    low, high = int(array.min()), int(array.max())
    return np.flatnonzero(np.bincount(array - low)) + low if high - low < MOST_COUNTED else np.unique(array)


def at_boundary(segmentations: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Returns whether voxels have a neighbour of another class, diagonal ones too.

    Shape: (B, X, Y[, Z]) integers, (V,) in the flattened batch -> (V,) bool.
    """
    own = segmentations.reshape(-1)[positions]
    image, *place = np.unravel_index(positions, segmentations.shape)
    found = np.zeros(len(positions), bool)
    for step in product((-1, 0, 1), repeat=len(place)):
        ends = zip(place, step, segmentations.shape[1:], strict=True)
        neighbour = (image, *(np.clip(coordinate + by, 0, size - 1) for coordinate, by, size in ends))
        found |= segmentations[neighbour] != own
    return found
