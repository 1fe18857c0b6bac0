"""What nnU-Net's decoder computes on the way to its segmentation."""

from __future__ import annotations

import torch
from torch import nn


class DecoderFeatures:
    """Keeps what one level of nnU-Net's decoder puts out, each time that the decoder runs, until `remove`.

    Args:
        decoder: nnU-Net's.
        level: 0 for the finest, which the last segmentation layer gets.

    Attributes:
        features: (B, channels, x, y[, z]) of the last run.
    """

    def __init__(self, decoder: nn.Module, level: int = 0) -> None:
        self.channels: int = decoder.seg_layers[-1 - level].in_channels
        self.features: torch.Tensor
        self._hook = decoder.stages[-1 - level].register_forward_hook(self._keep)

    def _keep(self, stage: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        self.features = output

    def remove(self) -> None:
        self._hook.remove()
