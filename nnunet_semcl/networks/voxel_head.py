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
