"""Supervised contrast of the voxels of one batch."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import normalize

from nnunet_semcl.distributed import gather
from nnunet_semcl.losses.supcon import SupConLoss
from nnunet_semcl.methods.semcl.separation import separation
from nnunet_semcl.networks.voxel_head import VoxelHead


class VoxelContrast(nn.Module):
    """Decoder's features of sampled voxels -> head -> supervised contrast.

    Args:
        channels: number of the decoder's features.
        embedding_dim: length of an embedding vector.
        temperature: temperature of the contrastive loss.

    Attributes:
        level: of the decoder, the finest.
    """

    level = 0

    def __init__(self, channels: int, embedding_dim: int, temperature: float) -> None:
        super().__init__()
        self.head = VoxelHead(channels, embedding_dim)
        self.loss = SupConLoss(temperature)

    def forward(
        self, features: torch.Tensor, output: torch.Tensor, batch: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Computes loss and figures.

        Shape:
            features: (P, channels, X, Y[, Z]).
            output: not used.
            batch: voxel and voxel_class, (V,) each.
        """
        embeddings = normalize(gather(self.head(features, batch["voxel"])).float(), dim=1)
        classes = gather(batch["voxel_class"])
        figures = {} if self.training else {"voxel_separation": separation(embeddings, classes)}
        return self.loss(embeddings, classes), figures
