"""nnU-Net's planned network with a second decoder on its encoder, which sees perturbed features."""

from __future__ import annotations

from copy import deepcopy

import torch
from dynamic_network_architectures.building_blocks.helper import convert_dim_to_conv_op, get_matching_dropout
from torch import nn

MODES = {2: "bilinear", 3: "trilinear"}
DROPPED = 0.5  # of the channels, as in UniMatch (Yang et al. 2023, arXiv 2208.09910)


class TwoDecoders(nn.Module):
    """Two outputs for one image, from decoders that differ.

    The first decoder is the planned one and is not changed. The second upsamples by interpolation instead of
    transposed convolutions, starts from other weights, and gets features of which whole channels are dropped.

    Source: Basak et al., IDEAL, ICASSP 2023, arXiv 2210.15075: one encoder, two decoders of different architecture on
    perturbed branches; how they differ is inferred.

    Args:
        network: nnU-Net's planned one, with encoder and decoder.

    Shape: (B, C, X, Y[, Z]) -> two outputs as the planned network gives them, one tensor or a list of levels.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.second = _interpolating(network.decoder)
        self.dropout = get_matching_dropout(dimension=_axes(network.decoder))(DROPPED)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor | list[torch.Tensor], ...]:
        skips = self.network.encoder(image)
        return self.network.decoder(skips), self.second([self.dropout(skip) for skip in skips])


def _interpolating(decoder: nn.Module) -> nn.Module:
    """A decoder with other weights and with interpolation in place of transposed convolutions."""
    # The encoder hangs on nnU-Net's decoder; it is shared, and none of the second decoder's own.
    second = deepcopy(decoder, {id(decoder.encoder): None})
    for level, up in enumerate(second.transpconvs):
        # A 1x1 convolution and interpolation commute: on the coarse grid it costs less.
        second.transpconvs[level] = nn.Sequential(
            convert_dim_to_conv_op(_axes(decoder))(up.in_channels, up.out_channels, 1),
            nn.Upsample(scale_factor=tuple(map(float, up.stride)), mode=MODES[_axes(decoder)]),
        )
    for module in second.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    return second.to(next(decoder.parameters()).device)


def _axes(decoder: nn.Module) -> int:
    return decoder.seg_layers[0].weight.ndim - 2
