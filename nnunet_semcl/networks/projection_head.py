"""From the encoder's features to an embedding. Removed after pretraining."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import interpolate


class ProjectionHead(nn.Sequential):
    """Maps the pooled features of all stages (see `attention_pool`) to an embedding: BatchNorm, Linear, ReLU, Linear.

    SemCL (Lee et al. 2023) pools only the bottleneck, with equal weights. nnU-Net's instance normalisation gives each
    channel the same mean over a patch, so that pool hardly differs between patches. A pool over the voxels of the
    object does, most of all in the finer stages, which reach the decoder through skip connections.

    Args:
        channels: number of channels of each stage, the bottleneck last.
        embedding_dim: length of an embedding.

    Shape: pooled features (N, sum of channels) -> embeddings (N, embedding_dim), not normalised.

    >>> from nnunet_semcl.networks import ProjectionHead, attention_pool
    >>> stages = [torch.zeros(2, 4, 16, 16), torch.zeros(2, 6, 8, 8)]
    >>> mask = torch.ones(2, 1, 16, 16)
    >>> ProjectionHead((4, 6), embedding_dim=5)(attention_pool(stages, mask)).shape
    torch.Size([2, 5])
    """

    def __init__(self, channels: Sequence[int], embedding_dim: int) -> None:
        pooled = sum(channels)
        super().__init__(
            nn.BatchNorm1d(pooled), nn.Linear(pooled, channels[-1]), nn.ReLU(), nn.Linear(channels[-1], embedding_dim)
        )


def attention_pool(features: Sequence[torch.Tensor], attention: torch.Tensor | None) -> torch.Tensor:
    """Means of each stage's features, weighted by the attention.

    Shape:
        features: (B, C_s, x_s, y_s[, z_s]) of each stage s.
        attention: (B, 1, X, Y[, Z]) of 0 and 1, or None for equal weights.
        output: (B, sum of C_s).
    """
    return torch.cat([_pool(stage, attention) for stage in features], dim=1)


def _pool(features: torch.Tensor, attention: torch.Tensor | None) -> torch.Tensor:
    """Weighted mean over all voxels: (B, C, x, y[, z]) -> (B, C)."""
    if attention is None:
        return features.flatten(2).mean(2)
    # Area averages: an object smaller than a voxel of the stage keeps a weight above 0.
    weights = interpolate(attention, features.shape[2:], mode="area").flatten(2)  # (B, 1, voxels)
    return (features.flatten(2) * weights).sum(2) / weights.sum(2)
