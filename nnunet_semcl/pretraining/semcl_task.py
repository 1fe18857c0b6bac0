"""SemCL's object contrast: query patches of one object attract each other, those of other objects repel."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import normalize

from nnunet_semcl.losses.supcon import SupConLoss
from nnunet_semcl.networks.attention_stem import add_attention_stem, remove_attention_stem
from nnunet_semcl.networks.projection_head import ProjectionHead
from nnunet_semcl.pretraining.task import PretrainingTask


class SemCLTask(PretrainingTask):
    """Encoder with attention stem -> global pools under the attention -> projection head -> supervised contrast.

    Source: Lee et al., Semantic-Aware Contrastive Learning for Multi-Object Medical Image Segmentation,
    IEEE JBHI 27(9) 2023, arXiv 2106.01596.

    Args:
        encoder: of nnU-Net's planned network; returns the features of its stages, the bottleneck's last. Changed in
            place until `remove_additions`.
        embedding_dim: length of an embedding.
        temperature: of the contrast.
        use_attention: False leaves the mask out (an ablation).
    """

    def __init__(self, encoder: nn.Module, embedding_dim: int, temperature: float, use_attention: bool = True) -> None:
        super().__init__()
        self.encoder = encoder
        self.use_attention = use_attention
        device = next(encoder.parameters()).device
        if use_attention:
            add_attention_stem(encoder)
        self.head = ProjectionHead(encoder.output_channels, embedding_dim).to(device)
        self.loss = SupConLoss(temperature)

    def embed(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """image (B, C, X, Y[, Z]) and mask (B, 1, X, Y[, Z]) -> embeddings (B, embedding_dim) of length one."""
        features = self.encoder(torch.cat((image, mask), dim=1) if self.use_attention else image)
        return normalize(self.head(features, mask if self.use_attention else None).float(), dim=1)

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Batch: image (B, C, X, Y[, Z]), mask (B, 1, X, Y[, Z]), object (B,), query (B,); B views of B / 2 queries."""
        embeddings = self.embed(batch["image"], batch["mask"])
        return {
            "loss": self.loss(embeddings, batch["object"]),
            "separation": separation(embeddings.detach(), batch["object"], batch["query"]),
        }

    def remove_additions(self) -> None:
        remove_attention_stem(self.encoder)


def separation(embeddings: torch.Tensor, objects: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
    """Mean cosine similarity of same-object pairs minus that of different-object pairs, from -2 to 2.

    The two views of one query are no pair: they are alike whatever the network does.

    Shape: embeddings (N, D) of length one; objects (N,); queries (N,); returns a scalar (NaN without either pair).
    """
    similarity = embeddings @ embeddings.T  # (N, N)
    same_object = objects[:, None] == objects[None]
    other_query = queries[:, None] != queries[None]
    return similarity[same_object & other_query].mean() - similarity[~same_object].mean()
