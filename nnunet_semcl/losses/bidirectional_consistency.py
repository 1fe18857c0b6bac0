"""Two decoders under labels, and each under the other's pseudo-labels where there are none."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from nnunet_semcl.losses.deep_supervision import Levels, levels_of


class BidirectionalConsistencyLoss(nn.Module):
    """Supervision of both decoders, and cross pseudo supervision between them.

    With p1 and p2 the decoders' outputs, y the labels of the first patches of a batch, and y1 and y2 the hard labels
    that the decoders give the patches behind them:

        L = S(p1, y) + S(p2, y) + w ( S(p1, y2) + S(p2, y1) )

    The first two terms are taken over the labelled patches, the others over the unlabelled ones.

    Args:
        supervised: S, a loss of outputs and targets, each one tensor or a list of levels.

    Attributes:
        weight: w, 0 until it is set.

    Shape:
        outputs: two, of B patches each; target: of the first L <= B patches, as S takes it; pseudo_labels: y1 and y2 of
        the others, each a target of the finest level (B - L, 1 or more, X, Y[, Z]); returns a scalar.

    Source: Basak et al., IDEAL, ICASSP 2023, arXiv 2210.15075 (y1 supervises p2 and y2 supervises p1, gradients
    stopped); cross pseudo supervision is Chen et al. 2021, arXiv 2106.01226.
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
        of_one, of_two = pseudo_labels
        cross = self._loss(one, _on_levels(of_two, one), listed) + self._loss(two, _on_levels(of_one, two), listed)
        return supervised + self.weight * cross

    def _loss(self, outputs: list[Tensor], targets: list[Tensor], listed: bool) -> Tensor:
        return self.supervised(outputs, targets) if listed else self.supervised(outputs[0], targets[0])


def _on_levels(labels: Tensor, levels: list[Tensor]) -> list[Tensor]:
    """Labels of the finest level on the grid of each."""
    return [F.interpolate(labels.float(), level.shape[2:], mode="nearest") for level in levels]


def ramp_up(progress: float, length: float) -> float:
    """From near 0 to 1 as progress (0 to 1) reaches the length: exp(-5 (1 - t)^2), of Laine and Aila 2017,
    arXiv 1610.02242."""
    t = min(1.0, progress / length) if length else 1.0
    return math.exp(-5 * (1 - t) ** 2)
