"""SemCL's coarse training: segmentation of labelled patches, contrast of places in unlabelled ones too."""

from __future__ import annotations

import torch
from torch import nn

from nnunet_semcl.losses.deep_supervision import Levels, levels_of
from nnunet_semcl.methods.semcl.place_contrast import PlaceContrast
from nnunet_semcl.pretraining.task import PretrainingTask


class CoarseTask(PretrainingTask):
    """Adds contrast of places, in all patches of a batch, to nnU-Net's own loss on the labelled ones.

    Args:
        network: nnU-Net's planned network. Changed in place until `remove_additions`.
        loss: MarginalLoss around nnU-Net's loss.
        places: the contrast.
        weight: of the contrast, beside nnU-Net's loss.
    """

    stays_on_cpu = frozenset({"missing", "labelled"})

    def __init__(self, network: nn.Module, loss: nn.Module, places: PlaceContrast, weight: float) -> None:
        super().__init__()
        self.network = network
        self.segmentation_loss = loss
        self.places = places.to(next(network.parameters()).device)
        self.weight = weight

    @torch.compiler.disable(recursive=False)
    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Computes the loss and the figures of a batch of TrainingBatches with places."""
        output = self.network(batch["image"])
        contrast = self.places(batch)
        labelled = batch["labelled"].nonzero()[:, 0]
        there = labelled.to(batch["image"].device)
        # nnU-Net does not compile its loss either.
        loss = torch.compiler.disable(self.segmentation_loss)
        segmentation = loss(_of(output, there), _of(batch["target"], there), batch["missing"][labelled])
        return {
            "loss": segmentation + self.weight * contrast,
            "segmentation_loss": segmentation,
            "place_loss": contrast,
        }

    def remove_additions(self) -> None:
        self.places.remove()


def _of(levels: Levels, patches: torch.Tensor) -> Levels:
    chosen = [level[patches] for level in levels_of(levels)]
    return chosen if isinstance(levels, (list, tuple)) else chosen[0]
