"""Voxels to contrast: sampled from training patches, equally many per class, half of them at class boundaries."""

from __future__ import annotations

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


class VoxelBatches(Dataset):
    """Training patches with sampled voxels; batch number i depends only on the patches' seed and i.

    Args:
        patches: nnU-Net's training batches.
        voxels: number of voxels sampled from a batch; none are drawn for 0.
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
            placed, place: see TrainingBatches.
        """
        batch = self.patches[number]
        batch["patch"] = batch.pop("image")
        if not self.voxels:
            return batch
        classes = voxel_classes(levels_of(batch["target"])[0], self.labels)
        with seeded(self.patches.seed, number) as rng:
            voxel, voxel_class, boundary = sample_voxels(classes, self.voxels, rng)
        return {**batch, "voxel": voxel, "voxel_class": voxel_class, "at_boundary": boundary}


def voxel_classes(target: torch.Tensor, labels: LabelManager) -> torch.Tensor:
    """Returns a class for each voxel: its label or, with regions, the set of regions it belongs to as a bit mask.

    Voxels with the ignore label, and those that may be an object that was not found, are UNKNOWN.

    Shape: nnU-Net's target at full resolution, labels (P, 1, ...) or regions (P, R, ...) -> (P, ...) integers.
    """
    if not labels.has_regions:
        classes = target[:, 0]  # int16, which is sorted many times as fast as int64
        return classes if labels.ignore_label is None else classes.masked_fill(classes >= labels.ignore_label, UNKNOWN)
    regions = len(labels.foreground_regions)  # an ignore label adds channels
    bits = 2 ** torch.arange(regions).view(-1, *[1] * (target.ndim - 2))
    classes = (target[:, :regions] * bits).sum(dim=1).to(torch.int16 if regions < 15 else torch.int64)
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

    UNKNOWN is not a class. Each class gets at least two, a pair to contrast: if `number` is too small for that, some of
    the classes are drawn. Boundaries are looked for among CANDIDATES times as many voxels as a class gives.

    Shape: segmentations (B, X, Y[, Z]) integers -> positions (V,) int64 in the flattened batch, classes (V,) int64, and
    whether they are at a boundary, (V,) bool.
    """
    volume = segmentations.numpy()
    flat = volume.reshape(-1)
    order = np.argsort(flat, kind="stable")  # int16 in linear time, however many classes there are
    by_class = np.split(order, np.flatnonzero(np.diff(flat[order])) + 1)
    found = {int(flat[voxels[0]]): voxels for voxels in by_class}
    found.pop(UNKNOWN, None)
    if not found:
        none = torch.empty(0, dtype=torch.int64)
        return none, none, none.bool()
    if 2 * len(found) > number:
        found = {label: found[label] for label in np.sort(rng.choice(list(found), number // 2, replace=False)).tolist()}
    per_class = number // len(found)
    drawn = [rng.choice(voxels, min(CANDIDATES * per_class, len(voxels)), replace=False) for voxels in found.values()]
    # Boundaries are tested once, for all classes: most of the time would go into starting numpy's operations.
    edges = np.split(at_boundary(volume, np.concatenate(drawn)), np.cumsum([len(voxels) for voxels in drawn])[:-1])
    chosen = []
    for edge in edges:
        first = np.flatnonzero(edge)[: int(per_class * BOUNDARY_SHARE)]
        chosen.append(np.concatenate((first, np.delete(np.arange(len(edge)), first)[: per_class - len(first)])))
    positions = [voxels[some] for voxels, some in zip(drawn, chosen, strict=True)]
    boundary = [edge[some] for edge, some in zip(edges, chosen, strict=True)]
    of_class = torch.tensor(list(found)).repeat_interleave(torch.tensor([len(some) for some in chosen]))
    return torch.from_numpy(np.concatenate(positions)), of_class, torch.from_numpy(np.concatenate(boundary))


def at_boundary(segmentations: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Returns whether voxels have a neighbour of another class, diagonal ones too.

    Shape: (B, X, Y[, Z]) integers, (V,) in the flattened batch -> (V,) bool.
    """
    flat = segmentations.reshape(-1)
    own = flat[positions]
    ways = [np.zeros_like(positions)]  # to each neighbour, in the flattened batch
    rest, stride = positions, 1
    for size in segmentations.shape[:0:-1]:
        rest, place = np.divmod(rest, size)
        steps = (np.where(place > 0, -stride, 0), np.zeros_like(place), np.where(place < size - 1, stride, 0))
        ways = [way + step for way in ways for step in steps]
        stride *= size
    return np.any([flat[positions + way] != own for way in ways], axis=0)
