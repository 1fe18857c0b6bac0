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


class DecoderFeatures(nn.Module):
    """nnU-Net's decoder without its last layer: what the planned segmentation layer would have got.

    Changes the decoder in place until `give_back`. The planned layer stays a part of this module, so that a
    checkpoint of pretraining holds it.

    Shape: the encoder's features, a list from fine to coarse -> (B, C, X, Y[, Z]).
    """

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder
        self.planned_layer = decoder.seg_layers[-1]
        self._deep_supervision = decoder.deep_supervision
        decoder.seg_layers[-1] = nn.Identity()
        decoder.deep_supervision = False

    @property
    def channels(self) -> int:
        return self.planned_layer.in_channels

    def forward(self, features: list[torch.Tensor]) -> torch.Tensor:
        return self.decoder(features)

    def give_back(self) -> None:
        self.decoder.seg_layers[-1] = self.planned_layer
        self.decoder.deep_supervision = self._deep_supervision
