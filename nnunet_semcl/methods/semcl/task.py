"""SemCL's contrast: what belongs to one object attracts each other, what belongs to others repels."""

from __future__ import annotations

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

CONTRAST_WEIGHT = 0.3  # beside nnU-Net's loss, which lies between -1 and some 1; the contrast's is near log(batch)


class SemCLTask(PretrainingTask):
    """The contrast of objects, of voxels, or of both, and nnU-Net's own loss beside it:

    - objects: encoder with attention stem -> pools under the attention -> head -> supervised contrast. Source: Lee et
      al., Semantic-Aware Contrastive Learning for Multi-Object Medical Image Segmentation, IEEE JBHI 27(9) 2023,
      arXiv 2106.01596.
    - voxels: encoder, decoder -> features of sampled voxels -> head -> supervised contrast. They are voxels of
      nnU-Net's own training patches, which show no mask, since it would give their classes away.
    - segmentation of the same patches, so that the last layers learn too.

    Of a query's two views the encoder sees the first with its mask and the second without. So it has to find in the
    image what the mask shows, and the image is all there is once the stem is dropped.

    Args:
        network: nnU-Net's planned one. Changed in place until `remove_additions`.
        objective: "object", "voxel" or "both".
        embedding_dim: length of an embedding.
        temperature: of the contrast.
        segmentation_loss: of the network's output and a target, as nnU-Net's; None for contrast alone.
        use_attention: False shows no mask at all (an ablation).
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
        self.encoder, self.decoder = network.encoder, network.decoder
        self.objects = objective in ("object", "both")
        self.voxels = objective in ("voxel", "both")
        self.segmentation_loss = segmentation_loss
        self.use_attention = use_attention and self.objects
        device = next(network.parameters()).device
        if self.use_attention:
            add_attention_stem(self.encoder)
        if self.objects:
            self.head = ProjectionHead(self.encoder.output_channels, embedding_dim).to(device)
        if self.voxels:
            self.last = DecoderFeatures(self.decoder)
            self.voxel_head = VoxelHead(self.last.channels, embedding_dim).to(device)
        self.contrast = SupConLoss(temperature)

    @torch.compiler.disable(recursive=False)
    def forward(self, batch: dict[str, torch.Tensor | list[torch.Tensor]]) -> dict[str, torch.Tensor]:
        """Batch of B views, first and second of each query in turn: image (B, C, X, Y[, Z]), mask (B, 1, X, Y[, Z]),
        object (B,), query (B,). Of patch (P, C, X, Y[, Z]): target, one tensor or a list of levels; voxel (V,),
        positions in the flattened (P, X, Y[, Z]), and voxel_class (V,)."""
        contrasts, figures = [], {}
        if self.objects:
            image, mask = batch["image"], batch["mask"]
            features = self._encode(image, mask_second_views(mask))
            # Pools of all processes: the head's batch normalisation sees the whole batch.
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
    """The masks (B, 1, X, Y[, Z]) of first views, and zeros for second ones."""
    shown = mask.clone()
    shown[1::2] = 0
    return shown


@torch.compiler.disable
def separation(embeddings: torch.Tensor, objects: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
    """Mean cosine similarity of same-object pairs minus that of different-object pairs, from -2 to 2.

    The two views of one query are no pair: they are alike whatever the network does.

    Shape: embeddings (N, D) of length one; objects (N,); queries (N,), each of one object; returns a scalar (NaN
    without either pair).
    """
    same_object, object_pairs = _similarity_within(embeddings, objects)
    same_query, query_pairs = _similarity_within(embeddings, queries)
    everything, pairs = _similarity_within(embeddings, torch.zeros_like(objects))
    of_same = (same_object - same_query) / (object_pairs - query_pairs)
    return of_same - (everything - same_object) / (pairs - object_pairs)


def _similarity_within(embeddings: torch.Tensor, groups: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum and number of the similarities of ordered pairs within groups: the squared length of each group's sum."""
    _, group, size = torch.unique(groups, return_inverse=True, return_counts=True)
    sums = embeddings.new_zeros(len(size), embeddings.shape[1]).index_add(0, group, embeddings)
    return sums.square().sum(), size.square().sum()
