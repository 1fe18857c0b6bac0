"""nnU-Net's planned network with a second decoder that gets perturbed features of the same encoder."""

from __future__ import annotations

from copy import deepcopy

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from dynamic_network_architectures.building_blocks.helper import convert_dim_to_conv_op, get_matching_dropout
from dynamic_network_architectures.building_blocks.unet_decoder import UNetDecoder
from torch import nn

MODES = {2: "bilinear", 3: "trilinear"}
DROPPED = 0.5  # share of the channels, as in UniMatch (Yang et al. 2023, arXiv 2208.09910)


class TwoDecoders(nn.Module):
    """Two outputs for one image, from two different decoders.

    The first decoder is the planned one, unchanged. The second upsamples by interpolation instead of transposed
    convolutions, starts from other weights, and gets features with whole channels dropped.

    Args:
        network: nnU-Net's planned network, with encoder and decoder.

    Shape: (B, C, X, Y[, Z]) -> two outputs in the planned network's form, one tensor or a list of levels.

    Source: Basak et al., IDEAL, ICASSP 2023, arXiv 2210.15075: one encoder and two decoders of different architecture
    on perturbed branches. How they differ is our inference.

    >>> from nnunet_semcl.networks import TwoDecoders
    >>> from dynamic_network_architectures.architectures.unet import PlainConvUNet
    >>> network = PlainConvUNet(1, 2, (4, 8), nn.Conv2d, 3, (1, 2), 1, num_classes=3, n_conv_per_stage_decoder=1)
    >>> first, second = TwoDecoders(network)(torch.zeros(2, 1, 16, 16))
    >>> first.shape == second.shape == (2, 3, 16, 16)
    True
    """

    def __init__(self, network: PlainConvUNet | ResidualEncoderUNet) -> None:
        super().__init__()
        self.network: PlainConvUNet | ResidualEncoderUNet = network
        self.second = _interpolating(network.decoder)
        self.dropout = get_matching_dropout(dimension=_axes(network.decoder))(DROPPED)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor | list[torch.Tensor], ...]:
        skips = self.network.encoder(image)
        return self.network.decoder(skips), self.second([self.dropout(skip) for skip in skips])


def _interpolating(decoder: UNetDecoder) -> UNetDecoder:
    """A new decoder with other weights, and with interpolation instead of transposed convolutions."""
    # nnU-Net's decoder holds the encoder, which both decoders share: it is not copied.
    second = deepcopy(decoder, {id(decoder.encoder): None})
    for level, up in enumerate(second.transpconvs):
        # A 1x1 convolution commutes with interpolation and costs less on the coarse grid.
        second.transpconvs[level] = nn.Sequential(
            convert_dim_to_conv_op(_axes(decoder))(up.in_channels, up.out_channels, 1),
            nn.Upsample(scale_factor=tuple(map(float, up.stride)), mode=MODES[_axes(decoder)]),
        )
    for module in second.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    return second.to(next(decoder.parameters()).device)


def _axes(decoder: UNetDecoder) -> int:
    return decoder.seg_layers[0].weight.ndim - 2
