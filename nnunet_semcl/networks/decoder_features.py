"""Features inside nnU-Net's decoder."""

from __future__ import annotations

import torch
from dynamic_network_architectures.building_blocks.unet_decoder import UNetDecoder
from torch import nn


class DecoderFeatures:
    """Takes the output of one level of nnU-Net's decoder out of a forward pass, until `remove` is called.

    Args:
        decoder: nnU-Net's decoder.
        level: 0 for the finest, the input of the last segmentation layer.

    Attributes:
        channels: number of features.

    >>> from nnunet_semcl.networks import DecoderFeatures
    >>> from dynamic_network_architectures.architectures.unet import PlainConvUNet
    >>> network = PlainConvUNet(1, 2, (4, 8), nn.Conv2d, 3, (1, 2), 1, num_classes=3, n_conv_per_stage_decoder=1)
    >>> finest = DecoderFeatures(network.decoder)
    >>> _ = network(torch.zeros(2, 1, 16, 16))
    >>> finest.take().shape
    torch.Size([2, 4, 16, 16])
    >>> finest.remove()
    """

    def __init__(self, decoder: UNetDecoder, level: int = 0) -> None:
        self.channels: int = decoder.seg_layers[-1 - level].in_channels
        self._features: torch.Tensor | None = None
        self._hook = decoder.stages[-1 - level].register_forward_hook(self._keep)

    def _keep(self, stage: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        self._features = output

    def take(self) -> torch.Tensor:
        """Returns the features (B, channels, x, y[, z]) of the last forward pass, once: then they are not kept here.

        They are the largest activation of the network, and would lie in memory until the next step.
        """
        features, self._features = self._features, None
        if features is None:
            raise RuntimeError("the decoder has run no forward pass since its features were taken")
        return features

    def remove(self) -> None:
        """Leaves the decoder as it was."""
        self._hook.remove()
