"""How unsure a network is of a case, and how the case looks to it where it sees objects."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import nn

from nnunet_semcl.data.pseudo_labels import SLICES
from nnunet_semcl.networks.decoder_features import DecoderFeatures

NOTABLE = 0.1  # probability of foreground from which on a voxel counts: where the network finds or suspects an object


@dataclass(frozen=True)
class Uncertainty:
    """Of a case.

    Attributes:
        entropy: (X, Y, Z) float16, of the probabilities of a voxel, from 0 to 1; 0 where foreground is not NOTABLE.
        mean: over the voxels with notable foreground; 0 if there are none.
        voxels: number of these.
    """

    entropy: np.ndarray
    mean: float
    voxels: int

    @classmethod
    def from_logits(cls, logits: torch.Tensor, labels: LabelManager) -> Uncertainty:
        """Computes it from a network's output (heads, X, Y, Z), on its device, a few slices at a time."""
        entropies, total, voxels = [], 0.0, 0
        for part in logits.split(SLICES, dim=1):
            probabilities = labels.apply_inference_nonlin(part)
            notable = foreground(probabilities, labels) >= NOTABLE
            entropy = normalised_entropy(probabilities, labels) * notable
            total += float(entropy.sum())
            voxels += int(notable.sum())
            entropies.append(entropy.half().cpu())
        return cls(torch.cat(entropies).numpy(), total / max(1, voxels), voxels)


def normalised_entropy(probabilities: torch.Tensor, labels: LabelManager) -> torch.Tensor:
    """Returns the entropy of each voxel divided by its largest possible value: (heads, ...) -> (...), from 0 to 1.

    With K labels that value is log K. With regions, which are told apart one by one, it is the entropy of the least
    certain region, divided by log 2.
    """
    if labels.has_regions:
        both = torch.special.entr(probabilities) + torch.special.entr(1 - probabilities)
        return both.amax(0) / math.log(2)
    return torch.special.entr(probabilities).sum(0) / math.log(len(probabilities))


def foreground(probabilities: torch.Tensor, labels: LabelManager) -> torch.Tensor:
    """Returns the probability of any label but background, or of the likeliest region: (heads, ...) -> (...)."""
    return probabilities.amax(0) if labels.has_regions else probabilities[1:].sum(0)


class ForegroundFeatures:
    """Pools the last decoder features of all windows that a network predicts, weighted by foreground probability.

    A plain mean would say little: instance normalisation gives all images alike means.

    Args:
        network: one of nnU-Net's, without deep supervision. Watched until `remove` is called.
        labels: of its output.
    """

    def __init__(self, network: nn.Module, labels: LabelManager) -> None:
        self.labels = labels
        self._last = DecoderFeatures(network.get_submodule("decoder"))
        self._hook = network.register_forward_hook(self._add)
        self._sum, self._weight = torch.zeros(self._last.channels), 0.0

    def _add(self, network: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        features = self._last.take().float()  # (B, D, X, Y[, Z])
        for image, logits in zip(features, output, strict=True):
            weight = foreground(self.labels.apply_inference_nonlin(logits), self.labels)
            self._sum += (image * weight).flatten(1).sum(1).cpu()
            self._weight += float(weight.sum())

    def take(self) -> np.ndarray:
        """Returns the pooled features (D,) of the windows since the last call."""
        pooled = (self._sum / max(self._weight, 1e-12)).numpy()
        self._sum, self._weight = torch.zeros(self._last.channels), 0.0
        return pooled

    def remove(self) -> None:
        """Leaves the network as it was."""
        self._hook.remove()
        self._last.remove()
