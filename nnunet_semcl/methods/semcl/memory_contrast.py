"""Contrast with a memory: unsure voxels under an object's mask against a memory of the objects in other images."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import normalize

from nnunet_semcl.distributed import gather, rank, world_size
from nnunet_semcl.losses.memory_contrast import MemoryContrastLoss
from nnunet_semcl.methods.semcl.separation import separation
from nnunet_semcl.networks.voxel_head import VoxelHead, at_voxels

INNER, BOUNDARY = 0, 1


class MemoryContrast(nn.Module):
    """Attracts voxels to their object's embeddings in other images and repels them from those of other objects.

    An object's embedding is the mean of its voxels under its mask in one image; inner voxels and those at the mask's
    boundary give one each, its two parts. The memory keeps the last `size` embeddings of each part. Anchors are the
    voxels that the network does not yet assign to the mask's class with probability `sure`: the others need no
    contrast.

    Source: after SPCL (ICASSP 2026); the embeddings pooled under masks are SemCL's (Lee et al. 2023).

    Args:
        channels: number of the decoder's features.
        classes: (K,), all values that a voxel's class may have, ascending.
        embedding_dim: length of an embedding.
        temperature: temperature of the contrastive loss.
        size: number of embeddings of each part in the memory.
        sure: probability above which a voxel is no anchor.
        with_regions: whether outputs are independent regions and a class is the set of a voxel's regions, as bits.

    Attributes:
        level: of the decoder, the finest.
    """

    level = 0
    memory: torch.Tensor
    stored: torch.Tensor
    classes: torch.Tensor

    def __init__(
        self,
        channels: int,
        classes: torch.Tensor,
        embedding_dim: int,
        temperature: float,
        size: int,
        sure: float,
        with_regions: bool,
    ) -> None:
        super().__init__()
        self.head = VoxelHead(channels, embedding_dim)
        self.loss = MemoryContrastLoss(temperature)
        self.sure = sure
        self.with_regions = with_regions
        self.register_buffer("classes", classes, persistent=False)
        self.register_buffer("memory", torch.zeros(len(classes), 2, size, embedding_dim))
        self.register_buffer("stored", torch.zeros(len(classes), 2, dtype=torch.int64))  # so far, also those replaced

    @torch.compiler.disable
    def forward(
        self, features: torch.Tensor, output: torch.Tensor, batch: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Computes loss and figures, then stores the batch's embeddings, unless the module is in evaluation mode.

        Shape:
            features: (P, channels, X, Y[, Z]).
            output: (P, heads, X, Y[, Z]), logits.
            batch: voxel, voxel_class and at_boundary, (V,) each.
        """
        voxel = batch["voxel"]
        embeddings = normalize(gather(self.head(features, voxel)).float())
        patch = gather(voxel // features[0, 0].numel() * world_size() + rank())
        classes = torch.searchsorted(self.classes, gather(batch["voxel_class"]))
        parts = gather(batch["at_boundary"]).long()
        certainty = gather(self._certainty(at_voxels(output.detach(), voxel).float(), batch["voxel_class"]))
        anchor = certainty <= self.sure
        places = (torch.arange(self.memory.shape[2], device=voxel.device) < self.stored[..., None]).nonzero()
        loss = self.loss(
            embeddings[anchor], classes[anchor], parts[anchor], self.memory[tuple(places.T)], places[:, 0], places[:, 1]
        )
        if self.training:
            self._store(embeddings.detach(), patch, classes, parts)
        figures = {"anchors": anchor.float().mean()}
        if not self.training:
            figures["voxel_separation"] = separation(embeddings, classes)
        return loss, figures

    def _certainty(self, logits: torch.Tensor, voxel_class: torch.Tensor) -> torch.Tensor:
        """The probability of each voxel's class; of the least certain region: (V, heads), (V,) -> (V,)."""
        if not self.with_regions:
            return logits.softmax(1).gather(1, voxel_class[:, None])[:, 0]
        inside = (voxel_class[:, None] >> torch.arange(logits.shape[1], device=logits.device)) & 1
        return torch.where(inside.bool(), logits, -logits).sigmoid().amin(1)

    def _store(self, embeddings: torch.Tensor, patch: torch.Tensor, classes: torch.Tensor, parts: torch.Tensor) -> None:
        """Stores the mean embedding of each part in each patch in place of the oldest ones."""
        groups, group, count = torch.unique(
            torch.stack((classes, parts, patch)), dim=1, return_inverse=True, return_counts=True
        )
        zeros = embeddings.new_zeros(len(count), embeddings.shape[1])
        means = normalize(zeros.index_add(0, group, embeddings))
        size = self.memory.shape[2]
        for of_class, part in torch.unique(groups[:2], dim=1).T.tolist():
            new = means[(groups[0] == of_class) & (groups[1] == part)][-size:]
            at = (self.stored[of_class, part] + torch.arange(len(new), device=new.device)) % size
            self.memory[of_class, part, at] = new
            self.stored[of_class, part] += len(new)
