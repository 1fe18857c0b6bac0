"""Plain supervised segmentation in the phase: SemCL's coarse training, and the control that contrast has to beat."""

from __future__ import annotations

import torch
from torch import nn

from nnunet_semcl.pretraining.task import PretrainingTask


class SupervisedTask(PretrainingTask):
    """nnU-Net's planned network under nnU-Net's loss, without deep supervision.

    Args:
        network: nnU-Net's planned one.
        loss: of logits (B, heads, X, Y[, Z]) and segmentations (B, 1, X, Y[, Z]).
    """

    def __init__(self, network: nn.Module, loss: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.segmentation_loss = loss
        self._deep_supervision = network.decoder.deep_supervision
        network.decoder.deep_supervision = False

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Batch: image (B, C, X, Y[, Z]) and segmentation (B, 1, X, Y[, Z]) of labels; what lies beyond a case counts
        as background, as in nnU-Net."""
        return {"loss": self.segmentation_loss(self.network(batch["image"]), batch["segmentation"].clamp(min=0))}

    def remove_additions(self) -> None:
        self.network.decoder.deep_supervision = self._deep_supervision
