"""Contrast of places, of labelled and unlabelled images alike."""

from __future__ import annotations

import torch
from dynamic_network_architectures.building_blocks.unet_decoder import UNetDecoder
from torch import nn

from nnunet_semcl.distributed import gather, rank, world_size
from nnunet_semcl.losses.place_contrast import PlaceContrastLoss
from nnunet_semcl.networks.decoder_features import DecoderFeatures
from nnunet_semcl.networks.voxel_head import VoxelHead

LEVEL = 2  # of the decoder, from the finest: a quarter of the resolution, and as a rule four times the features
PLACES = 512  # voxels of a batch
TEMPERATURE, WIDTH = 0.1, 0.06  # the width in shares of a case's size


class PlaceContrast(nn.Module):
    """Decoder's features of voxels -> head -> contrast of their places in their cases.

    Args:
        decoder: nnU-Net's, whose features are taken until `remove`.
        embedding_dim: length of an embedding vector.
    """

    def __init__(self, decoder: UNetDecoder, embedding_dim: int) -> None:
        super().__init__()
        self.features = DecoderFeatures(decoder, min(LEVEL, len(decoder.stages) - 1))
        self.head = VoxelHead(self.features.channels, embedding_dim)
        self.loss = PlaceContrastLoss(TEMPERATURE, WIDTH)

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Computes the loss of a batch that has just passed the decoder.

        Shape:
            batch: image (P, C, X, Y[, Z]), placed (V,), place (V, 3); see TrainingBatches.
        """
        features = self.features.take()  # (P, channels, x, y[, z])
        patch, *voxel = torch.unravel_index(batch["placed"], (len(features), *batch["image"].shape[2:]))
        coarser = patch
        for position, size, full in zip(voxel, features.shape[2:], batch["image"].shape[2:], strict=True):
            coarser = coarser * size + position * size // full
        embeddings = gather(self.head(features, coarser))
        return self.loss(embeddings, gather(batch["place"]), gather(patch * world_size() + rank()))

    def remove(self) -> None:
        """Leaves the decoder as it was."""
        self.features.remove()
