"""Features inside nnU-Net's decoder."""

from __future__ import annotations

import torch
from dynamic_network_architectures.building_blocks.unet_decoder import UNetDecoder
from torch import nn


class DecoderFeatures:
    """Keeps the output of one level of nnU-Net's decoder at every forward pass, until `remove` is called.

    Args:
        decoder: nnU-Net's decoder.
        level: 0 for the finest, the input of the last segmentation layer.

    Attributes:
        channels: number of features.
        features: (B, channels, x, y[, z]) of the last forward pass.

    >>> from nnunet_semcl.networks import DecoderFeatures
    >>> from dynamic_network_architectures.architectures.unet import PlainConvUNet
    >>> network = PlainConvUNet(1, 2, (4, 8), nn.Conv2d, 3, (1, 2), 1, num_classes=3, n_conv_per_stage_decoder=1)
    >>> finest = DecoderFeatures(network.decoder)
    >>> _ = network(torch.zeros(2, 1, 16, 16))
    >>> finest.features.shape
    torch.Size([2, 4, 16, 16])
    >>> finest.remove()
    """

    def __init__(self, decoder: UNetDecoder, level: int = 0) -> None:
        self.channels: int = decoder.seg_layers[-1 - level].in_channels
        self.features: torch.Tensor
        self._hook = decoder.stages[-1 - level].register_forward_hook(self._keep)

    def _keep(self, stage: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        self.features = output

    def remove(self) -> None:
        """Stops keeping features."""
        self._hook.remove()
