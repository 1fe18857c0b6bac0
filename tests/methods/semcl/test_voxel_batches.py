from __future__ import annotations

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.utils.seg_to_regions import ConvertSegmentationToRegionsTransform
from dynamic_network_architectures.building_blocks.helper import get_matching_pool_op
from hypothesis import given, settings
from hypothesis import strategies as st
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_semcl.files.cases import UNKNOWN
from nnunet_semcl.methods.semcl.voxel_batches import (
    VoxelBatches,
    at_boundary,
    possible_classes,
    sample_voxels,
    voxel_classes,
)


def boundary_of(segmentations: torch.Tensor) -> torch.Tensor:
    """(B, X, Y[, Z]) -> the same shape, bool: the largest and the smallest value in the neighbourhood differ."""
    values = segmentations.float()[:, None]
    pool = get_matching_pool_op(dimension=values.ndim - 2, pool_type="max")(3, stride=1, padding=1)
    return (pool(values) != -pool(-values))[:, 0]


@settings(max_examples=50, deadline=None)
@given(
    shape=st.sampled_from(((2, 8, 8), (3, 5, 7), (2, 4, 6, 6))),
    classes=st.integers(1, 5),
    number=st.integers(6, 200),
    seed=st.integers(0, 99),
)
def test_equally_many_of_each_class_within_the_number_asked_for(
    shape: tuple[int, ...], classes: int, number: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    segmentations = torch.randint(UNKNOWN, classes, shape, generator=generator, dtype=torch.int16)
    voxel, voxel_class, boundary = sample_voxels(segmentations, number, np.random.default_rng(seed))
    assert torch.equal(boundary, boundary_of(segmentations).flatten()[voxel])
    assert voxel.dtype == voxel_class.dtype == torch.int64
    assert torch.equal(segmentations.flatten()[voxel].long(), voxel_class)
    assert len(voxel.unique()) == len(voxel)
    labels = segmentations[segmentations != UNKNOWN].unique().tolist()
    if 2 * len(labels) > number:
        labels = voxel_class.unique().tolist()
        assert len(labels) == number // 2
    for label in labels:
        assert (voxel_class == label).sum() == min(number // len(labels), (segmentations == label).sum())
    assert (voxel_class != UNKNOWN).all()


def test_half_are_drawn_at_class_boundaries() -> None:
    segmentations = torch.zeros(1, 64, 64, dtype=torch.int16)
    segmentations[:, 32:] = 1
    boundary = boundary_of(segmentations)
    assert boundary[0, 31:33].all()
    assert boundary.sum() == 2 * 64
    voxel, _, at_edge = sample_voxels(segmentations, 200, np.random.default_rng(0))
    assert torch.equal(at_edge, boundary.flatten()[voxel])
    assert 100 <= at_edge.sum() <= 110  # 50 of each class, and a few by chance


def test_the_boundary_of_a_large_object_is_found_among_candidates() -> None:
    segmentations = torch.zeros(1, 400, 400, dtype=torch.int64)
    segmentations[:, 100:300, 100:300] = 1
    assert boundary_of(segmentations).float().mean() < 0.02
    at_edges = {0: 0, 1: 0}
    for seed in range(20):
        voxel, voxel_class, at_edge = sample_voxels(segmentations, 64, np.random.default_rng(seed))
        assert torch.equal(at_edge, boundary_of(segmentations).flatten()[voxel])
        assert len(voxel) == 64
        for label in at_edges:
            at_edges[label] += int(at_edge[voxel_class == label].sum())
    assert at_edges[1] >= 20 * 15  # of 16, half of 32, in nearly every batch all
    assert at_edges[0] >= 20 * 5  # of a larger one some, where chance would give none


def test_unknown_voxels_are_not_drawn() -> None:
    voxel, voxel_class, at_edge = sample_voxels(torch.full((2, 4, 4), UNKNOWN), 10, np.random.default_rng(0))
    assert len(voxel) == len(voxel_class) == len(at_edge) == 0
    assert at_edge.dtype == torch.bool


@pytest.mark.parametrize("shape", [(1, 6, 6), (1, 6, 6, 6)])
def test_one_class_has_no_boundary(shape: tuple[int, ...]) -> None:
    assert not at_boundary(np.ones(shape, int), np.arange(np.prod(shape))).any()


LABELS = {"background": 0, "a": 1, "b": 2}
REGIONS = {"background": 0, "whole": (1, 2), "core": 2}


class Patches:
    seed = 3

    def __getitem__(self, number: int) -> dict[str, torch.Tensor | list[torch.Tensor]]:
        generator = torch.Generator().manual_seed(number)
        target = torch.randint(0, 5, (2, 1, 9, 9), generator=generator, dtype=torch.int16)  # 4: maybe background
        missing = torch.tensor([[False, False, True]] * 2)
        return {"image": target.float(), "target": [target, target[:, :, ::2, ::2]], "missing": missing}


def test_a_batch_has_patches_and_classes_of_annotated_voxels() -> None:
    batches = VoxelBatches(Patches(), 40, LabelManager(LABELS | {"ignore": 3}, None))
    batch = batches[5]
    patches = Patches()[5]
    assert torch.equal(batch["patch"], patches["image"])
    assert all(torch.equal(a, b) for a, b in zip(batch["target"], patches["target"], strict=True))
    assert torch.equal(patches["target"][0].flatten()[batch["voxel"]].long(), batch["voxel_class"])
    assert set(batch["voxel_class"].tolist()) == {0, 1, 2}  # neither the ignore label nor what may be background
    assert torch.equal(batch["missing"], patches["missing"])
    assert torch.equal(batch["voxel"], batches[5]["voxel"])
    assert not torch.equal(batch["voxel"], batches[6]["voxel"])


@pytest.mark.parametrize("voxels", [0, 40])
def test_places_of_the_patches_are_passed_on(voxels: int) -> None:
    class Placed(Patches):
        def __getitem__(self, number: int) -> dict:
            return {**super().__getitem__(number), "placed": torch.arange(2), "place": torch.ones(2, 3)}

    batch = VoxelBatches(Placed(), voxels, LabelManager(LABELS, None))[5]
    drawn = {"voxel", "voxel_class", "at_boundary"} if voxels else set()
    assert set(batch) == {"patch", "target", "missing", "placed", "place"} | drawn
    assert torch.equal(batch["patch"], Patches()[5]["image"])


@pytest.mark.parametrize("ignore", [{}, {"ignore": 3}])
def test_each_combination_of_regions_is_a_class(ignore: dict[str, int]) -> None:
    labels = LabelManager(REGIONS | ignore, (1, 2))
    segmentation = torch.tensor([0, 1, 2, 3 if ignore else 0], dtype=torch.int16).view(1, 1, 2, 2)
    regions = [*labels.foreground_regions, *([3] if ignore else [])]  # as nnU-Net calls its transform
    target = ConvertSegmentationToRegionsTransform(regions, 0)(segmentation=segmentation[0])["segmentation"][None]
    background, whole, core, last = voxel_classes(target, labels).flatten().tolist()
    assert len({background, whole, core}) == 3
    assert background == 0
    assert last == (UNKNOWN if ignore else background)
    assert possible_classes(labels).tolist() == sorted({background, whole, core})


def test_background_that_may_be_a_missing_object_is_no_class() -> None:
    maybe = torch.tensor([0.0, 0, 1, 0]).view(1, 4, 1, 1)  # whole, core, maybe background, ignored
    assert voxel_classes(maybe, LabelManager(REGIONS | {"ignore": 3}, (1, 2))).item() == UNKNOWN


def test_the_classes_of_labels_are_the_labels() -> None:
    assert possible_classes(LabelManager(LABELS | {"ignore": 3}, None)).tolist() == [0, 1, 2]


def test_sixteen_regions_and_more_are_classes_too() -> None:
    """As bits of an int16 they would overflow and become background."""
    nested = {f"r{i}": tuple(range(i, 21)) for i in range(1, 21)}
    labels = LabelManager({"background": 0, **nested}, tuple(range(1, 21)))
    target = torch.zeros(1, 20, 1, 2)
    target[0, :, 0, 1] = 1
    assert voxel_classes(target, labels).flatten().tolist() == [0, 2**20 - 1]
    assert possible_classes(labels).tolist() == [0, *(2**i - 1 for i in range(1, 21))]


def test_many_classes_and_few_voxels_still_make_pairs() -> None:
    """As a process of eight has with 100 classes: none of them may be left with a single voxel, or with none."""
    segmentations = torch.arange(100).repeat_interleave(16).view(1, 40, 40)
    _, classes, _ = sample_voxels(segmentations, 64, np.random.default_rng(0))
    assert classes.unique(return_counts=True)[1].tolist() == [2] * 32
    drawn = [set(sample_voxels(segmentations, 64, np.random.default_rng(i))[1].tolist()) for i in range(40)]
    assert set.union(*drawn) == set(range(100))
