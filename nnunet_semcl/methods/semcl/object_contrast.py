"""The paper's contrast: objects, shown under their attention masks, by the encoder's features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import nn
from torch.nn.functional import normalize

from nnunet_semcl.distributed import gather, rank, world_size
from nnunet_semcl.losses.supcon import SupConLoss
from nnunet_semcl.methods.semcl.separation import separation
from nnunet_semcl.networks.attention_stem import add_attention_stem
from nnunet_semcl.networks.projection_head import ProjectionHead, attention_pool


class ObjectContrast(nn.Module):
    """Encoder with attention stem -> pooling under the attention -> head -> supervised contrast.

    The encoder sees the first view of a query with its mask and the second without. So it learns to find in the image
    what the mask shows, because after pretraining, without the stem, it has only the image.

    Source: Lee et al., Semantic-Aware Contrastive Learning for Multi-Object Medical Image Segmentation, IEEE JBHI 27(9)
    2023, arXiv 2106.01596.

    Args:
        encoder: nnU-Net's planned encoder. Gets the attention stem; `remove_attention_stem` drops it.
        embedding_dim: length of an embedding vector.
        temperature: temperature of the contrastive loss.
        use_attention: with False, no mask is shown at all (an ablation).
    """

    def __init__(self, encoder: nn.Module, embedding_dim: int, temperature: float, use_attention: bool = True) -> None:
        super().__init__()
        self.use_attention = use_attention
        if use_attention:
            add_attention_stem(encoder)
        self.head = ProjectionHead(cast("Sequence[int]", encoder.output_channels), embedding_dim)
        self.loss = SupConLoss(temperature)

    def views(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Returns the encoder's input for B views: (B, C, X, Y[, Z]), (B, 1, X, Y[, Z]) -> (B, C[ + 1], X, Y[, Z])."""
        return self.with_mask(image, mask_second_views(mask))

    def with_mask(self, image: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Appends a mask (B, 1, X, Y[, Z]), or an empty one, to images (B, C, X, Y[, Z]) if the encoder takes one."""
        if not self.use_attention:
            return image
        return torch.cat((image, torch.zeros_like(image[:, :1]) if mask is None else mask), dim=1)

    def forward(
        self, features: list[torch.Tensor], batch: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Computes loss and figures of B views, in which the two views of a query are neighbours.

        Shape:
            features: (B, C_s, x_s, y_s[, z_s]) of each of the encoder's stages.
            batch: mask (B, 1, X, Y[, Z]), object (B,), query (B,).
        """
        # Gathered first, so that the head's batch normalisation sees the batch of all processes.
        pooled = gather(attention_pool(features, batch["mask"] if self.use_attention else None))
        embeddings = normalize(self.head(pooled).float(), dim=1)
        objects, queries = gather(batch["object"]), gather(batch["query"] * world_size() + rank())
        # Of held-out cases alone: it costs a tenth of a step.
        figures = {} if self.training else {"separation": separation(embeddings, objects, queries)}
        return self.loss(embeddings, objects), figures


def mask_second_views(mask: torch.Tensor) -> torch.Tensor:
    """Returns the masks (B, 1, X, Y[, Z]) with zeros for the second view of each query."""
    shown = mask.clone()
    shown[1::2] = 0
    return shown
