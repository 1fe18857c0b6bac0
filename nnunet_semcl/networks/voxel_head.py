"""Embeddings of single voxels, from the decoder's features at full resolution."""

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


class LastFeatures:
    """Keeps what the last layer of nnU-Net's decoder gets, each time that the decoder runs, until `remove`.

    Attributes:
        features: (B, channels, X, Y[, Z]) of the last run.
    """

    def __init__(self, decoder: nn.Module) -> None:
        layer = decoder.seg_layers[-1]
        self.channels: int = layer.in_channels
        self.features: torch.Tensor
        self._hook = layer.register_forward_pre_hook(self._keep)

    def _keep(self, layer: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        self.features = inputs[0]

    def remove(self) -> None:
        self._hook.remove()
