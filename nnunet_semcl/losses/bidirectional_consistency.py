"""Supervises two decoders with labels, and each with the pseudo-labels of the other where labels are missing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from nnunet_semcl.losses.deep_supervision import Levels, levels_of


class BidirectionalConsistencyLoss(nn.Module):
    """Supervision of both decoders, and cross pseudo supervision between them.

    The first patches of a batch are labelled, the rest are unlabelled. p1 and p2 are the outputs of the decoders, y the
    labels, and y1 and y2 the pseudo-labels that the decoders predict for the unlabelled patches:

        L = S(p1, y) + S(p2, y) + w ( S(p1, y2) + S(p2, y1) )

    The first two terms cover the labelled patches, the last two the unlabelled ones.

    Args:
        supervised: S, a loss of outputs and targets, each one tensor or a list of levels.

    Attributes:
        weight: w, 0 until it is set.

    Shape:
        outputs: two, of B patches each.
        target: for the first L <= B patches, in the form that S takes.
        pseudo_labels: y1 and y2 for the other patches, targets of the finest level (B - L, 1 or more, X, Y[, Z]).
        output: scalar.

    Sources: Basak et al., IDEAL, ICASSP 2023, arXiv 2210.15075 (y1 supervises p2 and y2 supervises p1, gradients
    stopped); cross pseudo supervision is from Chen et al. 2021, arXiv 2106.01226.

    >>> import torch
    >>> from nnunet_semcl.losses import BidirectionalConsistencyLoss
    >>> loss = BidirectionalConsistencyLoss(supervised=nn.L1Loss())
    >>> loss.weight = 0.5
    >>> first, second = torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4)
    >>> labels_of_first_patch = torch.zeros(1, 1, 4, 4)
    >>> loss((first, second), labels_of_first_patch, pseudo_labels=(first[1:], second[1:]))
    tensor(2.)
    """

    def __init__(self, supervised: nn.Module) -> None:
        super().__init__()
        self.supervised = supervised
        self.weight = 0.0

    def forward(self, outputs: tuple[Levels, Levels], target: Levels, pseudo_labels: Sequence[Tensor]) -> Tensor:
        labelled = len(levels_of(target)[0])
        first, second = ([level[:labelled] for level in levels_of(output)] for output in outputs)
        one, two = ([level[labelled:] for level in levels_of(output)] for output in outputs)
        listed = isinstance(target, list)
        supervised = self._loss(first, levels_of(target), listed) + self._loss(second, levels_of(target), listed)
        if not self.weight or not len(one[0]):
            return supervised
        by_one, by_two = pseudo_labels
        cross = self._loss(one, _on_levels(by_two, one), listed) + self._loss(two, _on_levels(by_one, two), listed)
        return supervised + self.weight * cross

    def _loss(self, outputs: list[Tensor], targets: list[Tensor], listed: bool) -> Tensor:
        return self.supervised(outputs, targets) if listed else self.supervised(outputs[0], targets[0])


def _on_levels(labels: Tensor, levels: list[Tensor]) -> list[Tensor]:
    """Resamples labels of the finest level to the grid of each level."""
    return [F.interpolate(labels.float(), level.shape[2:], mode="nearest") for level in levels]


def ramp_up(progress: float, length: float) -> float:
    """Rises from near 0 to 1 while progress (0 to 1) grows from 0 to `length`, and stays at 1.

    exp(-5 (1 - t)^2) with t = progress / length, from Laine and Aila 2017, arXiv 1610.02242.
    """
    t = min(1.0, progress / length) if length else 1.0
    return math.exp(-5 * (1 - t) ** 2)
