"""Plain supervised segmentation as a phase: SemCL's coarse training, and a control experiment for contrast."""

from __future__ import annotations

import torch
from torch import nn

from nnunet_semcl.pretraining.task import PretrainingTask


class SupervisedTask(PretrainingTask):
    """Trains nnU-Net's planned network with nnU-Net's own loss, on nnU-Net's own batches.

    Args:
        network: nnU-Net's planned network.
        loss: MarginalLoss around nnU-Net's loss.
    """

    stays_on_cpu = frozenset({"missing"})

    def __init__(self, network: nn.Module, loss: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.segmentation_loss = loss

    @torch.compiler.disable(recursive=False)
    def forward(self, batch: dict[str, torch.Tensor | list[torch.Tensor]]) -> dict[str, torch.Tensor]:
        """Computes the loss of a batch of TrainingBatches."""
        output = self.network(batch["image"])
        # nnU-Net does not compile its loss either.
        return {"loss": torch.compiler.disable(self.segmentation_loss)(output, batch["target"], batch["missing"])}

    def remove_additions(self) -> None:
        """Does nothing: this task adds nothing to the network."""
