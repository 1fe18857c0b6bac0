"""SemCL's pretraining task: contrast of objects, of voxels, or of both, beside nnU-Net's own loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict, cast

import torch
from dynamic_network_architectures.building_blocks.unet_decoder import UNetDecoder
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import nn

from nnunet_semcl.losses.deep_supervision import levels_of
from nnunet_semcl.methods.semcl.memory_contrast import MemoryContrast
from nnunet_semcl.methods.semcl.object_contrast import ObjectContrast
from nnunet_semcl.methods.semcl.place_contrast import LEVEL, PlaceContrast
from nnunet_semcl.methods.semcl.voxel_batches import possible_classes
from nnunet_semcl.methods.semcl.voxel_contrast import VoxelContrast
from nnunet_semcl.networks.attention_stem import remove_attention_stem
from nnunet_semcl.networks.decoder_features import DecoderFeatures
from nnunet_semcl.pretraining.task import PretrainingTask


class SemCLBatch(TypedDict, total=False):
    """B views, in which the two views of a query are neighbours, and P patches with V voxels; or one of both."""

    image: torch.Tensor  # (B, C, X, Y[, Z])
    mask: torch.Tensor  # (B, 1, X, Y[, Z])
    object: torch.Tensor  # (B,)
    query: torch.Tensor  # (B,)
    patch: torch.Tensor  # (P, C, X, Y[, Z])
    target: torch.Tensor | list[torch.Tensor]  # one tensor, or a list of levels
    missing: torch.Tensor  # (P, heads) bool, see TrainingBatches
    voxel: torch.Tensor  # (V,), positions in the flattened (P, X, Y[, Z])
    voxel_class: torch.Tensor  # (V,)
    at_boundary: torch.Tensor  # (V,) bool
    placed: torch.Tensor  # (V,), positions in the flattened (P, X, Y[, Z])
    place: torch.Tensor  # (V, 3)


ContrastOfVoxels = VoxelContrast | MemoryContrast | PlaceContrast


class SemCLTask(PretrainingTask):
    """Adds contrasts to nnU-Net's own loss.

    Voxels are those of nnU-Net's own training patches. These are shown without a mask, since it would reveal the
    classes. Segmentation of the same patches makes the last layers learn too.

    Args:
        network: nnU-Net's planned network. Changed in place until `remove_additions`.
        voxels: contrast of voxels by the decoder's features, if any.
        objects: contrast of objects by the encoder's features, if any.
        weight: of the contrasts, beside nnU-Net's loss.
        segmentation_loss: MarginalLoss around nnU-Net's loss; None for contrast alone.
    """

    stays_on_cpu = frozenset({"missing"})

    def __init__(
        self,
        network: nn.Module,
        voxels: ContrastOfVoxels | None,
        objects: ObjectContrast | None,
        weight: float,
        segmentation_loss: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.decoder = network.get_submodule("encoder"), network.get_submodule("decoder")
        self.voxels, self.objects = voxels, objects
        self.weight = weight
        self.segmentation_loss = segmentation_loss
        self.to(next(network.parameters()).device)
        if voxels is not None:
            self.features = DecoderFeatures(self.decoder, voxels.level)

    @classmethod
    def from_settings(
        cls, network: nn.Module, settings: Mapping[str, Any], labels: LabelManager, segmentation_loss: nn.Module | None
    ) -> SemCLTask:
        """Builds the contrasts that SemCL's settings ask for; `labels` are those of the network's output."""
        objective, dim, temperature = (settings[key] for key in ("objective", "embedding_dim", "temperature"))
        layers = cast("UNetDecoder", network.get_submodule("decoder")).seg_layers
        channels = layers[-1].in_channels
        voxels: ContrastOfVoxels | None = None
        if objective == "memory":
            voxels = MemoryContrast(
                channels,
                possible_classes(labels),
                dim,
                temperature,
                settings["memory"],
                settings["sure"] if settings["segmentation"] else 1.0,
                labels.has_regions,
            )
        elif objective == "place":
            level = min(LEVEL, len(layers) - 1)
            voxels = PlaceContrast(layers[-1 - level].in_channels, dim, temperature, level)
        elif objective in ("voxel", "both"):
            voxels = VoxelContrast(channels, dim, temperature)
        objects = None
        if objective in ("object", "both"):
            objects = ObjectContrast(network.get_submodule("encoder"), dim, temperature, settings["use_attention"])
        return cls(network, voxels, objects, settings["contrast_weight"], segmentation_loss)

    @torch.compiler.disable(recursive=False)
    def forward(self, batch: SemCLBatch) -> dict[str, torch.Tensor]:
        """Computes the loss and the figures of a batch."""
        figures = {}
        if self.objects is not None:
            features = self.encoder(self.objects.views(batch["image"], batch["mask"]))
            figures["object_loss"], more = self.objects(features, batch)
            figures |= more
        if self.voxels is not None or self.segmentation_loss is not None:
            patch = batch["patch"] if self.objects is None else self.objects.with_mask(batch["patch"])
            output = self.decoder(self.encoder(patch))
        if self.voxels is not None:
            figures["voxel_loss"], more = self.voxels(self.features.take(), levels_of(output)[0], batch)
            figures |= more
        contrast = sum(figures[name] for name in ("object_loss", "voxel_loss") if name in figures)
        if self.segmentation_loss is None:
            return {"loss": contrast, **figures}
        # nnU-Net does not compile its loss either.
        loss = torch.compiler.disable(self.segmentation_loss)
        figures["segmentation_loss"] = loss(output, batch["target"], batch["missing"])
        return {"loss": figures["segmentation_loss"] + self.weight * contrast, **figures}

    def remove_additions(self) -> None:
        remove_attention_stem(self.encoder)
        if self.voxels is not None:
            self.features.remove()
