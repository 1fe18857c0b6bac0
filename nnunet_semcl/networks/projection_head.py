"""From the bottleneck to an embedding; dropped after pretraining."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import interpolate


class ProjectionHead(nn.Sequential):
    """Global pooling weighted by the attention, then Linear, ReLU, Linear (SemCL, Lee et al. 2023).

    The paper pools with equal weights. nnU-Net's instance normalisation gives every channel the same mean over a
    patch, so an equal-weights pool is all but the same for every patch; what an object's own voxels show is not.
    """

    def __init__(self, channels: int, embedding_dim: int) -> None:
        super().__init__(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, embedding_dim))

    def forward(self, features: torch.Tensor, attention: torch.Tensor | None) -> torch.Tensor:
        """features (B, C, x, y[, z]), attention (B, 1, X, Y[, Z]) of 0 and 1 -> (B, embedding_dim), not normalised.

        Without attention all voxels weigh the same.
        """
        if attention is None:
            return super().forward(features.flatten(2).mean(2))
        # Area averages: an object smaller than a bottleneck voxel still has its share of it.
        weights = interpolate(attention, features.shape[2:], mode="area")
        weights = weights / weights.flatten(1).sum(1).view(-1, *[1] * (features.ndim - 1))
        return super().forward((features * weights).flatten(2).sum(2))
