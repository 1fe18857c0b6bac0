import torch

from nnunet_semcl.networks.projection_head import ProjectionHead


def test_full_attention_is_the_plain_global_average():
    head = ProjectionHead(6, 4)
    features = torch.randn(3, 6, 4, 5, 2)
    torch.testing.assert_close(head(features, torch.ones(3, 1, 16, 20, 8)), head(features, None))


def test_only_what_the_attention_covers_counts():
    head = ProjectionHead(6, 4)
    features = torch.randn(2, 6, 4, 4)
    attention = torch.zeros(2, 1, 16, 16)
    attention[:, :, :8, 4:8] = 1  # bottleneck rows 0 and 1 of column 1
    changed = features.clone()
    changed[:, :, 2:] += 100
    changed[:, :, :, 2:] -= 100
    torch.testing.assert_close(head(changed, attention), head(features, attention))
    pooled = features[:, :, :2, 1].mean(-1)
    torch.testing.assert_close(head(features, attention), torch.nn.Sequential(*head)(pooled))


def test_an_object_of_a_single_voxel_is_finite():
    attention = torch.zeros(1, 1, 16, 16)
    attention[0, 0, 5, 9] = 1
    assert ProjectionHead(6, 4)(torch.randn(1, 6, 2, 2), attention).isfinite().all()
