"""Plain supervised segmentation in the phase: SemCL's coarse training, and the control that contrast has to beat."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from nnunet_semcl.data.attention import UNKNOWN, Object, labels_of
from nnunet_semcl.pretraining.task import PretrainingTask


class SupervisedTask(PretrainingTask):
    """nnU-Net's planned network under nnU-Net's loss, without deep supervision.

    Args:
        network: nnU-Net's planned one. Changed in place until `remove_additions`.
        loss: of logits (B, heads, X, Y[, Z]) and targets as nnU-Net's loss takes them.
        regions: where the network predicts regions, these; None for labels.
        ignore_label: the data set's, or None.
    """

    def __init__(
        self, network: nn.Module, loss: nn.Module, regions: Sequence[Object] | None, ignore_label: int | None
    ) -> None:
        super().__init__()
        self.network = network
        self.segmentation_loss = loss
        self.regions = regions
        self.ignore_label = ignore_label
        self._deep_supervision = network.decoder.deep_supervision
        network.decoder.deep_supervision = False

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Batch: image (B, C, X, Y[, Z]) and segmentation (B, 1, X, Y[, Z]) of labels and UNKNOWN."""
        return {"loss": self.segmentation_loss(self.network(batch["image"]), self.target(batch["segmentation"]))}

    def target(self, segmentation: torch.Tensor) -> torch.Tensor:
        """What nnU-Net's loss takes: labels (B, 1, ...), or regions (B, R, ...) with the ignored voxels behind them.

        What is UNKNOWN is ignored where the data set has a label for that, else background, as in nnU-Net.
        """
        labels = segmentation.masked_fill(segmentation == UNKNOWN, self.ignore_label or 0)
        if self.regions is None:
            return labels
        channels = [*self.regions, *([] if self.ignore_label is None else [self.ignore_label])]
        return torch.cat([torch.isin(labels, labels.new_tensor(labels_of(o))) for o in channels], dim=1).float()

    def remove_additions(self) -> None:
        self.network.decoder.deep_supervision = self._deep_supervision
