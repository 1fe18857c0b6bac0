from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from nnunet_semcl.methods.semcl.memory_contrast import MemoryContrast

CLASSES = torch.tensor([0, 1, 2])
SIZE = 3


def contrast(with_regions: bool = False) -> MemoryContrast:
    torch.manual_seed(0)
    return MemoryContrast(4, CLASSES, 6, 0.3, SIZE, 0.75, with_regions)


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    """Two patches of 8 x 8 with 40 voxels."""
    g = torch.Generator().manual_seed(seed)
    features = torch.randn(2, 4, 8, 8, generator=g)
    output = torch.randn(2, 3, 8, 8, generator=g)
    voxels = {
        "voxel": torch.randperm(128, generator=g)[:40],
        "voxel_class": torch.randint(3, (40,), generator=g),
        "at_boundary": torch.rand(40, generator=g) > 0.5,
    }
    return features, output, voxels


def test_the_memory_holds_the_mean_embedding_of_each_part_in_each_image() -> None:
    module = contrast()
    features, output, voxels = batch()
    module(features, output, voxels)
    embeddings = normalize(module.head(features, voxels["voxel"])).detach()
    for of_class in range(3):
        for part in range(2):
            stored = module.memory[of_class, part, : module.stored[of_class, part]]
            expected = []
            for patch in range(2):
                of = (voxels["voxel_class"] == of_class) & (voxels["at_boundary"] == part)
                of &= voxels["voxel"] // 64 == patch
                if of.any():
                    expected.append(normalize(embeddings[of].mean(0), dim=0))
            torch.testing.assert_close(stored, torch.stack(expected))


def test_the_oldest_embeddings_are_replaced() -> None:
    module, every = contrast(), contrast()
    every.memory = every.memory.new_zeros(3, 2, 100, 6)
    for seed in range(4):
        for each in (module, every):
            each(*batch(seed))
    assert torch.equal(module.stored, every.stored)
    for of_class in range(3):
        for part in range(2):
            number = int(every.stored[of_class, part])
            assert number > SIZE
            newest = every.memory[of_class, part, number - SIZE : number]
            kept = module.memory[of_class, part]
            assert {tuple(row) for row in kept.tolist()} == {tuple(row) for row in newest.tolist()}


def test_only_unsure_voxels_are_anchors() -> None:
    module = contrast()
    module(*batch(0))
    features, output, voxels = batch(1)
    features.requires_grad_()
    flat = output.movedim(1, -1).reshape(-1, 3)
    flat[voxels["voxel"][:20]] = 0
    flat[voxels["voxel"][:20], voxels["voxel_class"][:20]] = 9  # sure of the mask's class
    flat[voxels["voxel"][20:]] = 0  # a third each
    output = flat.reshape(2, 8, 8, 3).movedim(-1, 1)
    loss, figures = module(features, output, voxels)
    assert figures["anchors"] == 0.5
    loss.backward()
    moved = features.grad.movedim(1, -1).reshape(-1, 4).any(1)
    assert moved[voxels["voxel"][20:]].all()
    assert moved.sum() == 20


def test_voxels_that_are_sure_of_another_class_are_anchors() -> None:
    module = contrast()
    features, output, voxels = batch(1)
    output = torch.zeros_like(output)
    output[:, 0] = 9
    _, figures = module(features, output, voxels)
    assert figures["anchors"] == (voxels["voxel_class"] != 0).float().mean()


@pytest.mark.parametrize(("logits", "code", "anchors"), [((9, 9), 0b11, 0), ((9, -9), 0b01, 0), ((9, 9), 0b01, 1)])
def test_with_regions_all_of_a_voxels_regions_have_to_be_sure(
    logits: tuple[int, int], code: int, anchors: float
) -> None:
    module = MemoryContrast(4, torch.tensor([0b00, 0b01, 0b11]), 6, 0.3, SIZE, 0.75, True)
    output = torch.tensor(logits).float().view(1, 2, 1, 1).expand(1, 2, 8, 8)
    voxels = {"voxel": torch.arange(5), "voxel_class": torch.full((5,), code), "at_boundary": torch.zeros(5).bool()}
    _, figures = module(torch.randn(1, 4, 8, 8), output, voxels)
    assert figures["anchors"] == anchors
    assert module.stored.sum() == 1


def test_evaluation_changes_no_memory() -> None:
    module = contrast()
    module(*batch(0))
    before = {key: value.clone() for key, value in module.state_dict().items()}
    module.eval()
    loss, _ = module(*batch(1))
    assert loss > 0
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def test_the_memory_is_part_of_the_checkpoint() -> None:
    module = contrast()
    module(*batch(0))
    continued = contrast()
    continued.load_state_dict(module.state_dict())
    for seed in (1, 2):
        assert module(*batch(seed))[0] == continued(*batch(seed))[0]
    assert torch.equal(module.memory, continued.memory)


def test_an_empty_batch_and_an_empty_memory_give_a_differentiable_zero() -> None:
    module = contrast()
    features, output, voxels = batch()
    features.requires_grad_()
    loss, _ = module(features, output, {key: value[:0] for key, value in voxels.items()})
    first, _ = module(features, output, voxels)  # nothing to compare with yet
    assert loss == first == 0
    (loss + first).backward()
    assert not features.grad.any()
