"""A pretraining method as the phase sees it: a module that turns a batch into a loss."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import nn


class PretrainingTask(nn.Module, ABC):
    """Owns the part of the network that is pretrained and everything that a method adds to it.

    It is one module, so the optimiser, the checkpoint, torch.compile and DDP handle all of it together. Compile the
    networks alone, as nnU-Net does: put `forward` under torch.compiler.disable(recursive=False), a loss under disable.
    A new method is a new subclass in a file of its own.

    Attributes:
        stays_on_cpu: entries of a batch that Python reads; read from a GPU, it would wait for the GPU at each step.
    """

    stays_on_cpu: frozenset[str] = frozenset()

    @abstractmethod
    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Returns scalars: "loss", which is minimised, and any other figures, which are logged."""

    @abstractmethod
    def remove_additions(self) -> None:
        """Restores the network that nnU-Net planned: same keys, same shapes."""
