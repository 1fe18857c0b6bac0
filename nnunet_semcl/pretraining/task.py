"""What a pretraining method is to the phase: a module that turns a batch into a loss."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import nn


class PretrainingTask(nn.Module, ABC):
    """Owns the network's part that is pretrained and whatever a method adds to it.

    As a module it goes into the optimiser, the checkpoint, torch.compile and DDP as a whole. What is compiled is best
    the networks alone, as in nnU-Net: `forward` is under torch.compiler.disable(recursive=False), a loss under disable.
    A new method is a new subclass in a file of its own.
    """

    @abstractmethod
    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Returns scalars: "loss", which is minimised, and any further ones, which are logged."""

    @abstractmethod
    def remove_additions(self) -> None:
        """Gives the network back as nnU-Net planned it: same keys, same shapes."""
