"""From the encoder's features to an embedding; dropped after pretraining."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import interpolate


class ProjectionHead(nn.Sequential):
    """From pools of every stage (see `attention_pool`) to an embedding: Linear, ReLU, Linear (SemCL, Lee et al. 2023).

    The paper pools the bottleneck alone, with equal weights. nnU-Net's instance normalisation gives each channel the
    same mean over a patch, so such a pool hardly differs between patches: what the object's own voxels show does, and
    all the more in the finer stages, which the decoder sees through its skips.

    Args:
        channels: of each stage, the bottleneck's last.
        embedding_dim: length of an embedding.

    Shape: pooled features (N, sum of channels) -> embeddings (N, embedding_dim), not normalised.
    """

    def __init__(self, channels: Sequence[int], embedding_dim: int) -> None:
        pooled = sum(channels)
        super().__init__(
            nn.BatchNorm1d(pooled), nn.Linear(pooled, channels[-1]), nn.ReLU(), nn.Linear(channels[-1], embedding_dim)
        )


def attention_pool(features: Sequence[torch.Tensor], attention: torch.Tensor | None) -> torch.Tensor:
    """Means of each stage's features, weighted by the attention.

    Shape: features (B, C_s, x_s, y_s[, z_s]) of each stage s, attention (B, 1, X, Y[, Z]) of 0 and 1, or None where all
    voxels weigh the same -> (B, sum of C_s).
    """
    return torch.cat([_pool(stage, attention) for stage in features], dim=1)


def _pool(features: torch.Tensor, attention: torch.Tensor | None) -> torch.Tensor:
    """Weighted mean over all voxels: (B, C, x, y[, z]) -> (B, C)."""
    if attention is None:
        return features.flatten(2).mean(2)
    # Area averages: an object smaller than a voxel of the stage still has its share of it.
    weights = interpolate(attention, features.shape[2:], mode="area").flatten(2)  # (B, 1, voxels)
    return (features.flatten(2) * weights).sum(2) / weights.sum(2)
