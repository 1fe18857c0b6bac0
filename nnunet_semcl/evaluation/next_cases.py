"""The order in which to label cases: unsure ones first that stand for many others which are not labelled."""

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
        represents: how much nearer it brings an unlabelled case to one that is labelled or chosen: the mean over all
            unlabelled cases, itself included, of what it takes off that cosine distance, from 0 to 2.
    """

    case: str
    unsure: float
    represents: float


def order_cases(
    unsure: Mapping[str, float], features: Mapping[str, np.ndarray], labelled: Sequence[np.ndarray]
) -> list[NextCase]:
    """Orders unlabelled cases, the one to label first in front.

    At each step the cases that are left are ranked twice: by how unsure the network is, and by how well they represent
    what is not labelled. The smallest sum of both ranks is chosen; of equal sums the more unsure case, then the first
    by name. Ranks, since entropies and distances have no common unit.

    Source: unsure cases, and of these the ones that cover the others best, as in Yang et al., Suggestive Annotation,
    MICCAI 2017, arXiv 1706.04737. The sum of ranks is ours.

    Args:
        unsure: case -> a number that is larger if the network is less sure.
        features: case -> (D,).
        labelled: of each labelled case, (D,).
    """
    left = sorted(unsure)
    if not left:
        return []
    vectors = [features[case] for case in left]
    between = _distances(vectors, vectors)
    np.fill_diagonal(between, 0)
    nearest = _distances(vectors, labelled).min(1)
    uncertainty, rows = np.array([unsure[case] for case in left]), np.arange(len(left))
    chosen = []
    while len(rows):
        # rounded: two cases that stand for each other are equals, whatever order the numbers were added in
        represents = np.maximum(nearest[:, None] - between[:, rows], 0).mean(0).round(12)
        values = uncertainty[rows]
        ranks = rankdata(-values, "min") + rankdata(-represents, "min")
        first = np.lexsort((-values, ranks))[0]
        row = rows[first]
        chosen.append(NextCase(left[row], float(values[first]), float(represents[first])))
        nearest = np.minimum(nearest, between[:, row])
        rows = np.delete(rows, first)
    return chosen


def _distances(vectors: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> np.ndarray:
    """(vectors, others) by cosine; a case without features is as far from all as one with unlike ones."""
    return np.nan_to_num(cdist(np.stack(vectors), np.stack(others), "cosine"), nan=1.0)
