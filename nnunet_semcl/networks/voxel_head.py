"""Embeddings of single voxels from the decoder's features."""

from __future__ import annotations

import torch
from torch import nn


class VoxelHead(nn.Sequential):
    """Projects the features of chosen voxels: Linear, ReLU, Linear.

    Args:
        channels: C, number of features.
        embedding_dim: length of an embedding.

    Shape:
        features: (B, C, X, Y[, Z]).
        voxel: (V,), indices into the flattened (B, X, Y[, Z]).
        output: (V, embedding_dim).

    >>> from nnunet_semcl.networks import VoxelHead
    >>> VoxelHead(4, embedding_dim=8)(torch.zeros(2, 4, 16, 16), torch.tensor([0, 300])).shape
    torch.Size([2, 8])
    """

    def __init__(self, channels: int, embedding_dim: int) -> None:
        super().__init__(nn.Linear(channels, embedding_dim), nn.ReLU(), nn.Linear(embedding_dim, embedding_dim))

    def forward(  # type: ignore[override]  # the indices are a second input; the layers keep Sequential's names
        self, features: torch.Tensor, voxel: torch.Tensor
    ) -> torch.Tensor:
        return super().forward(at_voxels(features, voxel))


def at_voxels(features: torch.Tensor, voxel: torch.Tensor) -> torch.Tensor:
    """Returns the features of chosen voxels: (B, C, X, Y[, Z]), (V,) into the flattened (B, X, Y[, Z]) -> (V, C)."""
    flat = features.flatten(2)  # (B, C, voxels of a patch); a copy with the channels last would cost more
    patch, place = voxel // flat.shape[2], voxel % flat.shape[2]
    return flat[patch, :, place]
