"""Plain supervised segmentation in the phase: SemCL's coarse training, and the control that contrast has to beat."""

from __future__ import annotations

import torch
from torch import nn

from nnunet_semcl.pretraining.task import PretrainingTask


class SupervisedTask(PretrainingTask):
    """nnU-Net's planned network under nnU-Net's own loss, on nnU-Net's own batches.

    Args:
        network: nnU-Net's planned one.
        loss: of the network's output and a target as nnU-Net's loss takes it.
    """

    def __init__(self, network: nn.Module, loss: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.segmentation_loss = loss

    @torch.compiler.disable(recursive=False)
    def forward(self, batch: dict[str, torch.Tensor | list[torch.Tensor]]) -> dict[str, torch.Tensor]:
        """Batch: image (B, C, X, Y[, Z]) and target, one tensor or a list of levels."""
        output = self.network(batch["image"])
        # nnU-Net does not compile its loss either.
        return {"loss": torch.compiler.disable(self.segmentation_loss)(output, batch["target"])}

    def remove_additions(self) -> None:
        """There are none."""
