"""IDEAL's first phase: two views of the same anatomical location attract, different locations repel each other."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn
from torch.nn.functional import grid_sample
from torch.nn.utils.rnn import pad_sequence

from nnunet_semcl.distributed import gather, rank, world_size
from nnunet_semcl.losses.dense_contrast import DenseContrastiveLoss
from nnunet_semcl.networks.decoder_features import DecoderFeatures
from nnunet_semcl.pretraining.task import PretrainingTask

COUNTS = ("redrawn", "passed_over")  # of LocationBatches


class IDEALTask(PretrainingTask):
    """Dense local contrast between a query network and a key network, its moving average.

    Source: Basak et al., IDEAL: Improved DEnse locAL Contrastive Learning for Semi-Supervised Medical Image
    Segmentation, ICASSP 2023, arXiv 2210.15075. The paper describes the query and key encoders and a single 1x1
    convolution as projection head; the loss, the level and the momentum are inferred, see DenseContrastiveLoss.

    Args:
        network: nnU-Net's planned network, used as the query network. Changed in place until `remove_additions`.
        level: level of the decoder whose features are contrasted; 0 is the finest.
        embedding_dim: length of an embedding vector.
        temperature: temperature of the contrastive loss.
        radius: radius in mm within which locations of the same image do not repel each other.
        momentum: momentum of the key network, from 0 (a copy of the query network) to 1 (never updated).
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
        self.features = DecoderFeatures(network.get_submodule("decoder"), level)
        self.key_features = DecoderFeatures(self.key_network.get_submodule("decoder"), level)
        # At single locations a 1x1 convolution is a linear layer.
        self.head = nn.Linear(self.features.channels, embedding_dim).to(next(network.parameters()).device)
        self.key_head = deepcopy(self.head).requires_grad_(False)
        self.momentum = momentum
        self.loss = DenseContrastiveLoss(temperature, radius)

    @torch.compiler.disable(recursive=False)
    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Computes the loss and figures of a batch of B patches with N locations in total.

        Shape:
            query, key: (B, C, X, Y[, Z]), two views of each patch.
            image: (N,), the patch of each location, in ascending order.
            voxel: (N, axes), the location in voxels of the query.
            place: (N, axes), the location in voxels of the key, between voxel centres.
            position: (N, axes), the location in the patch in mm.
            redrawn, passed_over: (), see LocationBatches.
        """
        self.network(batch["query"])
        query = self.head(features_at(self.features.take(), batch["query"], batch["image"], batch["voxel"]))
        with torch.no_grad():
            if self.training:
                self._update_key_network()
            self.key_network(batch["key"])
            key = self.key_head(features_at(self.key_features.take(), batch["key"], batch["image"], batch["place"]))
        query, key, position = gather(query), gather(key), gather(batch["position"])
        image = gather(batch["image"] * world_size() + rank())
        figures = {"accuracy": accuracy(query.detach(), key), **{name: batch[name] for name in COUNTS}}
        return {"loss": self.loss(query, key, image, position), **figures}

    @torch.compiler.disable
    def _update_key_network(self) -> None:
        """Moves the weights of the key network towards those of the query network."""
        for key_part, part in ((self.key_network, self.network), (self.key_head, self.head)):
            for key, query in zip(key_part.parameters(), part.parameters(), strict=True):
                key.lerp_(query, 1 - self.momentum)
            for key_buffer, query_buffer in zip(key_part.buffers(), part.buffers(), strict=True):
                key_buffer.copy_(query_buffer)

    def remove_additions(self) -> None:
        self.features.remove()


@torch.compiler.disable
def features_at(features: torch.Tensor, view: torch.Tensor, image: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Returns features at places of a view, with linear interpolation between voxels.

    Shape:
        features: (B, C, x, y[, z]), with the resolution of the view or coarser.
        view: (B, channels, X, Y[, Z]).
        image: (N,), the patch of each place, in ascending order.
        places: (N, axes), in voxels of the view.
        Returns: (N, C).
    """
    size = torch.tensor(view.shape[2:], device=places.device)
    # grid_sample expects reversed axes, with -1 and 1 at the outer edges of the view.
    grid = ((2 * places + 1) / size - 1).flip(1).to(features.dtype)
    middle = [1] * (len(size) - 1)
    counts = torch.bincount(image, minlength=len(features)).tolist()
    each = pad_sequence(grid.split(counts), batch_first=True)  # (B, most places of a patch, axes)
    sampled = grid_sample(features, each.view(*each.shape[:2], *middle, len(size)), align_corners=False)
    number = torch.cat([torch.arange(count) for count in counts]).to(image.device)  # of each place in its patch
    return sampled.flatten(2)[image, :, number]


@torch.compiler.disable
def accuracy(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """Returns the share of locations whose query is most similar to its own key: (N, D), (N, D) -> scalar."""
    similarity = nn.functional.normalize(query.float()) @ nn.functional.normalize(key.float()).T
    return (similarity.argmax(1) == torch.arange(len(query), device=query.device)).float().mean()
