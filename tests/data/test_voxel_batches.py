import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_semcl.data.attention import UNKNOWN
from nnunet_semcl.data.voxel_batches import VoxelBatches, at_boundary, sample_voxels


@settings(max_examples=50, deadline=None)
@given(
    shape=st.sampled_from(((2, 8, 8), (3, 5, 7), (2, 4, 6, 6))),
    classes=st.integers(1, 5),
    number=st.integers(6, 200),
    seed=st.integers(0, 99),
)
def test_as_many_of_each_class_within_the_number_asked_for(shape, classes, number, seed):
    generator = torch.Generator().manual_seed(seed)
    segmentations = torch.randint(UNKNOWN, classes, shape, generator=generator, dtype=torch.int16)
    voxel, voxel_class = sample_voxels(segmentations, number, np.random.default_rng(seed), [UNKNOWN])
    assert voxel.dtype == voxel_class.dtype == torch.int64
    assert torch.equal(segmentations.flatten()[voxel].long(), voxel_class)
    assert len(voxel.unique()) == len(voxel)
    labels = segmentations[segmentations != UNKNOWN].unique().tolist()
    for label in labels:
        assert (voxel_class == label).sum() == min(number // len(labels), (segmentations == label).sum())
    assert (voxel_class != UNKNOWN).all()


def test_half_are_drawn_where_classes_meet():
    segmentations = torch.zeros(1, 64, 64, dtype=torch.int16)
    segmentations[:, 32:] = 1
    boundary = at_boundary(segmentations)
    assert boundary[0, 31:33].all() and boundary.sum() == 2 * 64
    voxel, _ = sample_voxels(segmentations, 200, np.random.default_rng(0), [UNKNOWN])
    assert 100 <= boundary.flatten()[voxel].sum() <= 110  # 50 of each class, and what chance adds


def test_nothing_known_gives_nothing():
    voxel, voxel_class = sample_voxels(torch.full((2, 4, 4), UNKNOWN), 10, np.random.default_rng(0), [UNKNOWN])
    assert len(voxel) == len(voxel_class) == 0


@pytest.mark.parametrize("shape", ((1, 6, 6), (1, 6, 6, 6)))
def test_one_class_has_no_boundary(shape):
    assert not at_boundary(torch.ones(shape)).any()


class Patches:
    seed = 3

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(number)
        target = torch.randint(UNKNOWN, 4, (2, 1, 9, 9), generator=generator, dtype=torch.int16)
        return {"image": target.float(), "target": target.masked_fill(target == -1, 0)}


def test_a_batch_holds_patches_and_what_is_known_of_their_voxels():
    batches = VoxelBatches(Patches(), 40, ignore_label=3)
    batch = batches[5]
    labels = Patches()[5]["target"].flatten()
    assert torch.equal(batch["patch"], Patches()[5]["image"])
    assert torch.equal(labels[batch["voxel"]].long(), batch["voxel_class"])
    assert set(batch["voxel_class"].tolist()) == {0, 1, 2}  # neither UNKNOWN nor the ignore label
    assert all(torch.equal(batch[name], batches[5][name]) for name in batch)
    assert not torch.equal(batch["voxel"], batches[6]["voxel"])
