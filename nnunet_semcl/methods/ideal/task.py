"""IDEAL's first phase: the same anatomical location in two views attracts itself, other locations repel."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn
from torch.nn.functional import grid_sample

from nnunet_semcl.distributed import gather, rank, world_size
from nnunet_semcl.losses.dense_contrast import DenseContrastiveLoss
from nnunet_semcl.networks.decoder_features import DecoderFeatures
from nnunet_semcl.pretraining.task import PretrainingTask


class IDEALTask(PretrainingTask):
    """Dense local contrast between a query network and a key network that follows it by momentum.

    Source: Basak et al., IDEAL: Improved DEnse locAL Contrastive Learning for Semi-Supervised Medical Image
    Segmentation, ICASSP 2023, arXiv 2210.15075. Query and key encoder and the single 1x1 convolution as projection
    head are theirs; the loss, the level and the momentum are inferred, see DenseContrastiveLoss.

    Args:
        network: nnU-Net's planned one; the query network. Changed in place until `remove_additions`.
        level: of the decoder's features, 0 for the finest.
        embedding_dim: length of an embedding.
        temperature: of the contrast.
        radius: in mm, within which locations of one image do not repel.
        momentum: of the key network, from 0, a copy, to 1, which never moves.
    """

    def __init__(
        self,
        network: nn.Module,
        level: int,
        embedding_dim: int,
        temperature: float,
        radius: float,
        momentum: float,
    ) -> None:
        super().__init__()
        self.network = network
        self.key_network = deepcopy(network).requires_grad_(False)
        self.features = DecoderFeatures(network.decoder, level)
        self.key_features = DecoderFeatures(self.key_network.decoder, level)
        # A 1x1 convolution at the locations alone: there it is a linear layer.
        self.head = nn.Linear(self.features.channels, embedding_dim).to(next(network.parameters()).device)
        self.key_head = deepcopy(self.head).requires_grad_(False)
        self.momentum = momentum
        self.loss = DenseContrastiveLoss(temperature, radius)

    @torch.compiler.disable(recursive=False)
    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Batch of B patches: query and key (B, C, X, Y[, Z]), two views of each; of N locations image (N,) in order,
        voxel (N, axes) in the query, place (N, axes) in voxels of the key, position (N, axes) in mm; redrawn ()."""
        self.network(batch["query"])
        query = self.head(features_at(self.features.features, batch["query"], batch["image"], batch["voxel"]))
        with torch.no_grad():
            if self.training:
                self._follow()
            self.key_network(batch["key"])
            key = self.key_head(features_at(self.key_features.features, batch["key"], batch["image"], batch["place"]))
        query, key, position = gather(query), gather(key), gather(batch["position"])
        image = gather(batch["image"] * world_size() + rank())
        figures = {"accuracy": accuracy(query.detach(), key), "redrawn": batch["redrawn"]}
        return {"loss": self.loss(query, key, image, position), **figures}

    @torch.compiler.disable
    def _follow(self) -> None:
        """Moves the key network towards the query network."""
        for key_part, part in ((self.key_network, self.network), (self.key_head, self.head)):
            for key, query in zip(key_part.parameters(), part.parameters(), strict=True):
                key.lerp_(query, 1 - self.momentum)
            for key, query in zip(key_part.buffers(), part.buffers(), strict=True):
                key.copy_(query)

    def remove_additions(self) -> None:
        self.features.remove()


@torch.compiler.disable
def features_at(features: torch.Tensor, view: torch.Tensor, image: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Features at places of a view, linear between voxels.

    Shape: features (B, C, x, y[, z]) of a view (B, channels, X, Y[, Z]), as fine or coarser; image (N,) in order,
    places (N, axes) in voxels of the view -> (N, C).
    """
    size = torch.tensor(view.shape[2:], device=places.device)
    # From voxel centres to grid_sample's -1 to 1 between the outer edges, axes in its order.
    grid = ((2 * places + 1) / size - 1).flip(1).to(features.dtype)
    middle = [1] * (len(size) - 1)
    each = [
        grid_sample(features[i : i + 1], grid[image == i].view(1, -1, *middle, len(size)), align_corners=False)
        for i in range(len(features))
    ]  # (1, C, n, 1[, 1])
    return torch.cat([f.flatten(2)[0].T for f in each])


@torch.compiler.disable
def accuracy(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """Share of the locations whose key is the one most similar to their query: (N, D), (N, D) -> scalar."""
    similarity = nn.functional.normalize(query.float()) @ nn.functional.normalize(key.float()).T
    return (similarity.argmax(1) == torch.arange(len(query), device=query.device)).float().mean()
