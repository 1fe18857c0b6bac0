"""Pooling under attention masks, and the projection of the pooled features."""

import torch

from nnunet_semcl.networks.projection_head import ProjectionHead, attention_pool


def features(seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(3, 4, 16, 16, generator=generator), torch.randn(3, 6, 4, 4, generator=generator)]


def test_full_attention_equals_the_global_average() -> None:
    plain = torch.cat([f.mean((2, 3)) for f in features()], dim=1)
    torch.testing.assert_close(attention_pool(features(), torch.ones(3, 1, 16, 16)), plain)
    torch.testing.assert_close(attention_pool(features(), None), plain)


def test_only_voxels_under_the_attention_count() -> None:
    attention = torch.zeros(3, 1, 16, 16)
    attention[:, :, :8, 4:8] = 1  # rows 0 and 1 of column 1 in the bottleneck
    fine, coarse = features()
    elsewhere = [fine + 100 * (1 - attention), coarse.clone()]
    elsewhere[1][:, :, 2:] += 100
    elsewhere[1][:, :, :, 2:] -= 100
    pooled = torch.cat((fine[:, :, :8, 4:8].mean((2, 3)), coarse[:, :, :2, 1].mean(2)), dim=1)
    torch.testing.assert_close(attention_pool((fine, coarse), attention), pooled)
    torch.testing.assert_close(attention_pool(elsewhere, attention), pooled)


def test_an_object_of_a_single_voxel_is_finite_in_3d() -> None:
    attention = torch.zeros(2, 1, 16, 16, 8)
    attention[:, 0, 5, 9, 3] = 1
    stages = [torch.randn(2, 4, 16, 16, 8), torch.randn(2, 6, 2, 2, 2)]
    embeddings = ProjectionHead((4, 6), 5)(attention_pool(stages, attention))
    assert embeddings.shape == (2, 5)
    assert embeddings.isfinite().all()
