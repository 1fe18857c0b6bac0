"""SemCL's contrast: embeddings of the same object attract, embeddings of different objects repel each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict, cast

import torch
from torch import nn
from torch.nn.functional import normalize

from nnunet_semcl.distributed import gather, rank, world_size
from nnunet_semcl.losses.supcon import SupConLoss
from nnunet_semcl.networks.attention_stem import add_attention_stem, remove_attention_stem
from nnunet_semcl.networks.decoder_features import DecoderFeatures
from nnunet_semcl.networks.projection_head import ProjectionHead, attention_pool
from nnunet_semcl.networks.voxel_head import VoxelHead
from nnunet_semcl.pretraining.task import PretrainingTask

CONTRAST_WEIGHT = 0.3  # nnU-Net's loss ranges from -1 to about 1, the contrastive loss is near log(batch size)


class SemCLBatch(TypedDict, total=False):
    """B views, in which the two views of a query are neighbours, and P patches with V voxels; or one of both."""

    image: torch.Tensor  # (B, C, X, Y[, Z])
    mask: torch.Tensor  # (B, 1, X, Y[, Z])
    object: torch.Tensor  # (B,)
    query: torch.Tensor  # (B,)
    patch: torch.Tensor  # (P, C, X, Y[, Z])
    target: torch.Tensor | list[torch.Tensor]  # one tensor, or a list of levels
    voxel: torch.Tensor  # (V,), positions in the flattened (P, X, Y[, Z])
    voxel_class: torch.Tensor  # (V,)


class SemCLTask(PretrainingTask):
    """Contrasts objects, voxels, or both, together with nnU-Net's own loss.

    - Objects: encoder with attention stem -> pooling under the attention -> head -> supervised contrast. Source: Lee et
      al., Semantic-Aware Contrastive Learning for Multi-Object Medical Image Segmentation, IEEE JBHI 27(9) 2023,
      arXiv 2106.01596.
    - Voxels: encoder, decoder -> features of sampled voxels -> head -> supervised contrast. The voxels come from
      nnU-Net's own training patches. These are shown without a mask, since it would reveal the classes.
    - Segmentation of the same patches, so that the last layers learn too.

    The encoder sees the first view of a query with its mask and the second without. So it learns to find in the image
    what the mask shows, because after pretraining, without the stem, it has only the image.

    Args:
        network: nnU-Net's planned network. Changed in place until `remove_additions`.
        objective: "object", "voxel" or "both".
        embedding_dim: length of an embedding vector.
        temperature: temperature of the contrastive loss.
        segmentation_loss: nnU-Net's loss, called with the network's output and the target; None for contrast alone.
        use_attention: with False, no mask is shown at all (an ablation).
    """

    def __init__(
        self,
        network: nn.Module,
        objective: str,
        embedding_dim: int,
        temperature: float,
        segmentation_loss: nn.Module | None = None,
        use_attention: bool = True,
    ) -> None:
        super().__init__()
        self.encoder, self.decoder = network.get_submodule("encoder"), network.get_submodule("decoder")
        self.objects = objective in ("object", "both")
        self.voxels = objective in ("voxel", "both")
        self.segmentation_loss = segmentation_loss
        self.use_attention = use_attention and self.objects
        device = next(network.parameters()).device
        if self.use_attention:
            add_attention_stem(self.encoder)
        if self.objects:
            channels = cast("Sequence[int]", self.encoder.output_channels)
            self.head = ProjectionHead(channels, embedding_dim).to(device)
        if self.voxels:
            self.last = DecoderFeatures(self.decoder)
            self.voxel_head = VoxelHead(self.last.channels, embedding_dim).to(device)
        self.contrast = SupConLoss(temperature)

    @torch.compiler.disable(recursive=False)
    def forward(self, batch: SemCLBatch) -> dict[str, torch.Tensor]:
        """Computes the loss and the figures of a batch."""
        contrasts, figures = [], {}
        if self.objects:
            image, mask = batch["image"], batch["mask"]
            features = self._encode(image, mask_second_views(mask))
            # Gathered first, so that the head's batch normalisation sees the batch of all processes.
            pooled = gather(attention_pool(features, mask if self.use_attention else None))
            embeddings = normalize(self.head(pooled).float(), dim=1)
            objects, queries = gather(batch["object"]), gather(batch["query"] * world_size() + rank())
            contrasts.append(self.contrast(embeddings, objects))
            figures["object_loss"] = contrasts[-1]
            figures["separation"] = separation(embeddings.detach(), objects, queries)
        if self.voxels or self.segmentation_loss is not None:
            patch = batch["patch"]
            output = self.decoder(self._encode(patch, torch.zeros_like(patch[:, :1])))
        if self.voxels:
            embeddings = normalize(gather(self.voxel_head(self.last.features, batch["voxel"])).float(), dim=1)
            classes = gather(batch["voxel_class"])
            contrasts.append(self.contrast(embeddings, classes))
            figures["voxel_loss"] = contrasts[-1]
            each = torch.arange(len(embeddings), device=embeddings.device)
            figures["voxel_separation"] = separation(embeddings.detach(), classes, each)
        if self.segmentation_loss is None:
            return {"loss": sum(contrasts), **figures}
        # nnU-Net does not compile its loss either.
        figures["segmentation_loss"] = torch.compiler.disable(self.segmentation_loss)(output, batch["target"])
        return {"loss": figures["segmentation_loss"] + CONTRAST_WEIGHT * sum(contrasts), **figures}

    def _encode(self, image: torch.Tensor, mask: torch.Tensor) -> list[torch.Tensor]:
        return self.encoder(torch.cat((image, mask), dim=1) if self.use_attention else image)

    def remove_additions(self) -> None:
        remove_attention_stem(self.encoder)
        if self.voxels:
            self.last.remove()


def mask_second_views(mask: torch.Tensor) -> torch.Tensor:
    """Returns the masks (B, 1, X, Y[, Z]) with zeros for the second view of each query."""
    shown = mask.clone()
    shown[1::2] = 0
    return shown


@torch.compiler.disable
def separation(embeddings: torch.Tensor, objects: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
    """Returns the mean cosine similarity of same-object pairs minus that of different-object pairs, from -2 to 2.

    The two views of one query do not count as a pair: they are similar whatever the network does.

    Shape:
        embeddings: (N, D), of length one.
        objects: (N,).
        queries: (N,), each with one object.
        Returns: a scalar, NaN if there are no pairs of either kind.
    """
    same_object, object_pairs = _similarity_within(embeddings, objects)
    same_query, query_pairs = _similarity_within(embeddings, queries)
    everything, pairs = _similarity_within(embeddings, torch.zeros_like(objects))
    similarity = (same_object - same_query) / (object_pairs - query_pairs)
    return similarity - (everything - same_object) / (pairs - object_pairs)


def _similarity_within(embeddings: torch.Tensor, groups: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns sum and number of the similarities of all ordered pairs within groups.

    The sum over a group's pairs is the squared length of the sum of its embeddings.
    """
    _, group, size = torch.unique(groups, return_inverse=True, return_counts=True)
    sums = embeddings.new_zeros(len(size), embeddings.shape[1]).index_add(0, group, embeddings)
    return sums.square().sum(), size.square().sum()
