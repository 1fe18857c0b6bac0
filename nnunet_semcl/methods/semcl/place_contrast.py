"""Contrast of the voxels of different patches by their places in the body."""

from __future__ import annotations

import torch
from torch import nn

from nnunet_semcl.distributed import gather, rank, world_size
from nnunet_semcl.losses.place_contrast import PlaceContrastLoss
from nnunet_semcl.networks.voxel_head import VoxelHead

LEVEL = 2  # of the decoder: a quarter of the resolution, and as a rule four times the finest level's features
TEMPERATURE = 0.1  # gives better masks than the other contrasts' 0.3
WIDTH = 0.06  # of the neighbourhood whose voxels attract each other, in shares of the body's size


class PlaceContrast(nn.Module):
    """Decoder's features of voxels -> head -> contrast of their places.

    No label is used, so that all of an unlabelled image teaches, also where its mask says nothing.

    Args:
        channels: number of the decoder's features at `level`.
        embedding_dim: length of an embedding vector.
        level: of the decoder, from the finest.
    """

    def __init__(self, channels: int, embedding_dim: int, level: int) -> None:
        super().__init__()
        self.level = level
        self.head = VoxelHead(channels, embedding_dim)
        self.loss = PlaceContrastLoss(TEMPERATURE, WIDTH)

    def forward(
        self, features: torch.Tensor, output: torch.Tensor, batch: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Computes the loss; there are no figures.

        Shape:
            features: (P, channels, x, y[, z]).
            output: not used.
            batch: patch (P, C, X, Y[, Z]), placed (V,), place (V, 3); see TrainingBatches.
        """
        size = batch["patch"].shape[2:]
        patch, *voxel = torch.unravel_index(batch["placed"], (len(features), *size))
        coarser = patch
        for position, full, coarse in zip(voxel, size, features.shape[2:], strict=True):
            coarser = coarser * coarse + position * coarse // full
        embeddings = gather(self.head(features, coarser))
        return self.loss(embeddings, gather(batch["place"]), gather(patch * world_size() + rank())), {}
