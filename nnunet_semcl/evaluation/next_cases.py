"""The order in which to label cases: unsure ones first that are unlike what is labelled or chosen already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist
from scipy.stats import rankdata


@dataclass(frozen=True)
class NextCase:
    """A case to label.

    Attributes:
        case: its name.
        unsure: how unsure the network is of it.
        different: cosine distance to the nearest case that was labelled or chosen before it, from 0 to 2.
    """

    case: str
    unsure: float
    different: float


def order_cases(
    unsure: Mapping[str, float], features: Mapping[str, np.ndarray], labelled: Sequence[np.ndarray]
) -> list[NextCase]:
    """Orders unlabelled cases, the one to label first in front.

    At each step the cases that are left are ranked twice: by how unsure the network is, and by the distance to the
    nearest case that is labelled or chosen already. The smallest sum of both ranks is chosen; of equal sums the more
    unsure case, then the first by name. Ranks, since entropies and distances have no common unit.

    Source: uncertainty and representativeness together as in Yang et al., Suggestive Annotation, MICCAI 2017, arXiv
    1706.04737; the farthest from what is chosen next as in Sener and Savarese, core-set, ICLR 2018, arXiv 1708.00489.
    The sum of ranks is ours.

    Args:
        unsure: case -> a number that is larger if the network is less sure.
        features: case -> (D,).
        labelled: of each labelled case, (D,).
    """
    left = sorted(unsure)
    nearest = _distances(features, left, labelled).min(1) if left else np.empty(0)
    chosen = []
    while left:
        values = np.array([unsure[case] for case in left])
        ranks = rankdata(-values, "min") + rankdata(-nearest, "min")
        first = min(range(len(left)), key=lambda position: (ranks[position], -values[position]))
        case = left.pop(first)
        chosen.append(NextCase(case, float(values[first]), float(nearest[first])))
        nearest = np.delete(nearest, first)
        if left:
            nearest = np.minimum(nearest, _distances(features, left, [features[case]])[:, 0])
    return chosen


def _distances(features: Mapping[str, np.ndarray], cases: Sequence[str], others: Sequence[np.ndarray]) -> np.ndarray:
    """(cases, others); a case without features is as far from all as one with unlike ones."""
    distances = cdist(np.stack([features[case] for case in cases]), np.stack(others), "cosine")
    return np.nan_to_num(distances, nan=1.0)
