"""Embeddings of single voxels, from the decoder's features."""

from __future__ import annotations

import torch
from torch import nn


class VoxelHead(nn.Sequential):
    """Linear, ReLU, Linear on the features of the voxels asked for; the rest of the batch is not projected.

    Shape: features (B, C, X, Y[, Z]), voxel (V,) positions in the flattened (B, X, Y[, Z]) -> (V, embedding_dim).
    """

    def __init__(self, channels: int, embedding_dim: int) -> None:
        super().__init__(nn.Linear(channels, embedding_dim), nn.ReLU(), nn.Linear(embedding_dim, embedding_dim))

    def forward(self, features: torch.Tensor, voxel: torch.Tensor) -> torch.Tensor:
        return super().forward(features.movedim(1, -1).flatten(0, -2).index_select(0, voxel))


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
