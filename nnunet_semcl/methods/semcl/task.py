"""SemCL's pretraining task: contrasts of objects and of voxels, beside nnU-Net's own loss."""

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
        voxels: contrasts of voxels by the decoder's features, by name.
        objects: contrast of objects by the encoder's features, if any.
        weight: of the contrasts of objects and of classes.
        place_weight: of the contrast of places.
        segmentation_loss: MarginalLoss around nnU-Net's loss; None for contrast alone.
    """

    stays_on_cpu = frozenset({"missing"})

    def __init__(
        self,
        network: nn.Module,
        voxels: Mapping[str, ContrastOfVoxels],
        objects: ObjectContrast | None,
        weight: float,
        place_weight: float,
        segmentation_loss: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.decoder = network.get_submodule("encoder"), network.get_submodule("decoder")
        self.voxels, self.objects = nn.ModuleDict(voxels), objects
        self.weights = {"object_loss": weight, "voxel_loss": weight, "memory_loss": weight, "place_loss": place_weight}
        self.segmentation_loss = segmentation_loss
        self.to(next(network.parameters()).device)
        self.features = {name: DecoderFeatures(self.decoder, contrast.level) for name, contrast in voxels.items()}

    @classmethod
    def from_settings(
        cls, network: nn.Module, settings: Mapping[str, Any], labels: LabelManager, segmentation_loss: nn.Module | None
    ) -> SemCLTask:
        """Builds the contrasts that SemCL's settings ask for; `labels` are those of the network's output."""
        contrasts = settings["objective"].split("+")
        dim, temperature = settings["embedding_dim"], settings["temperature"]
        layers = cast("UNetDecoder", network.get_submodule("decoder")).seg_layers
        channels = layers[-1].in_channels
        voxels: dict[str, ContrastOfVoxels] = {}
        if "voxel" in contrasts:
            voxels["voxel"] = VoxelContrast(channels, dim, temperature)
        if "memory" in contrasts:
            voxels["memory"] = MemoryContrast(
                channels,
                possible_classes(labels),
                dim,
                temperature,
                settings["memory"],
                settings["sure"] if settings["segmentation"] else 1.0,
                labels.has_regions,
            )
        if "place" in contrasts:
            level = min(LEVEL, len(layers) - 1)
            voxels["place"] = PlaceContrast(layers[-1 - level].in_channels, dim, level)
        objects = None
        if "object" in contrasts:
            objects = ObjectContrast(network.get_submodule("encoder"), dim, temperature, settings["use_attention"])
        return cls(network, voxels, objects, settings["contrast_weight"], settings["place_weight"], segmentation_loss)

    @torch.compiler.disable(recursive=False)
    def forward(self, batch: SemCLBatch) -> dict[str, torch.Tensor]:
        """Computes the loss and the figures of a batch."""
        figures = {}
        if self.objects is not None:
            features = self.encoder(self.objects.views(batch["image"], batch["mask"]))
            figures["object_loss"], more = self.objects(features, batch)
            figures |= more
        if self.voxels or self.segmentation_loss is not None:
            patch = batch["patch"] if self.objects is None else self.objects.with_mask(batch["patch"])
            output = self.decoder(self.encoder(patch))
        for name, voxels in self.voxels.items():
            figures[f"{name}_loss"], more = voxels(self.features[name].take(), levels_of(output)[0], batch)
            figures |= more
        contrast = sum(weight * figures[name] for name, weight in self.weights.items() if name in figures)
        if self.segmentation_loss is None:
            return {"loss": contrast, **figures}
        # nnU-Net does not compile its loss either.
        loss = torch.compiler.disable(self.segmentation_loss)
        figures["segmentation_loss"] = loss(output, batch["target"], batch["missing"])
        return {"loss": figures["segmentation_loss"] + contrast, **figures}

    def remove_additions(self) -> None:
        remove_attention_stem(self.encoder)
        for features in self.features.values():
            features.remove()
