from __future__ import annotations

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from nnunet_semcl.losses.place_contrast import PlaceContrastLoss
from nnunet_semcl.methods.semcl.place_contrast import WIDTH, PlaceContrast
from nnunet_semcl.networks.decoder_features import DecoderFeatures


def test_voxels_take_the_features_of_the_coarser_voxel_that_covers_them() -> None:
    contrast = PlaceContrast(6, 16, level=2)
    features, patch = torch.randn(4, 6, 4, 8), torch.zeros(4, 1, 16, 16)
    placed, place = torch.randperm(4 * 256)[:100], torch.rand(100, 3)
    loss, figures = contrast(features, patch, {"patch": patch, "placed": placed, "place": place})
    of, row, column = placed // 256, placed % 256 // 16, placed % 16
    embeddings = nn.Sequential.forward(contrast.head, features[of, :, row // 4, column // 2])
    torch.testing.assert_close(loss, PlaceContrastLoss(0.1, WIDTH)(embeddings, place, of))
    assert not figures


@pytest.mark.parametrize("axes", [2, 3])
def test_a_few_steps_bring_near_places_together(axes: int) -> None:
    """Images of one brightness ramp with noise: a voxel's brightness tells its place."""
    torch.manual_seed(0)
    convolution = nn.Conv2d if axes == 2 else nn.Conv3d
    strides = ([1] * axes, [2] * axes, [2] * (axes - 1) + [1], [2] * axes)
    network = PlainConvUNet(1, 4, (4, 6, 8, 10), convolution, 3, strides, 1, 3, 1, conv_bias=True)
    features = DecoderFeatures(network.decoder, level=2)
    contrast = PlaceContrast(features.channels, 16, level=2)
    optimizer = torch.optim.Adam([*network.parameters(), *contrast.parameters()], 1e-2)
    size = (16,) * axes
    ramp = torch.linspace(-1, 1, 16).view(-1, *[1] * (axes - 1)).expand(size)
    for _ in range(30):
        patch = ramp + 0.05 * torch.randn(4, 1, *size)
        placed = torch.randperm(patch[:, 0].numel())[:200]
        row = torch.unravel_index(placed, (4, *size))[1]
        batch = {"patch": patch, "placed": placed, "place": row[:, None] / 16}
        output = network(patch)
        seen = features.take()
        optimizer.zero_grad()
        contrast(seen, output, batch)[0].backward()
        optimizer.step()
    trained, _ = contrast(seen.detach(), output, batch)
    shuffled, _ = contrast(seen.detach(), output, {**batch, "place": batch["place"].flip(0)})
    assert trained < shuffled - 0.3
