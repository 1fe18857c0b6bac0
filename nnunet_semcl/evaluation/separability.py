"""How well classes can be told apart by embeddings, when what is classified comes from a case that was not learned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import silhouette_score
from sklearn.model_selection import GroupKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

MOST_FOLDS = 10  # up to so many cases, each is left out by itself


@dataclass(frozen=True)
class Separability:
    """Figures of embeddings; NaN where a figure is not defined, since there is one case or one class.

    Attributes:
        knn: share of embeddings whose nearest neighbours in other cases, by cosine, mostly have their class.
        linear: share that a linear classifier, fitted to other cases, gives its class.
        silhouette: mean silhouette by cosine distance, from -1 to 1.
    """

    knn: float
    linear: float
    silhouette: float


def separability(embeddings: np.ndarray, classes: np.ndarray, cases: np.ndarray, neighbours: int) -> Separability:
    """Computes the figures.

    Shape: (N, D) float, (N,), (N,).

    Args:
        neighbours: of each embedding, that vote.
    """
    silhouette = np.nan
    if 1 < len(set(classes)) < len(classes):
        silhouette = float(silhouette_score(embeddings, classes, metric="cosine"))
    n_cases = len(set(cases))
    if n_cases < 2 or len(set(classes)) < 2:
        return Separability(np.nan, np.nan, silhouette)
    knn, linear = (np.zeros(len(classes), bool) for _ in range(2))  # whether each is classified right
    for known, asked in GroupKFold(min(n_cases, MOST_FOLDS)).split(embeddings, classes, cases):
        nearest = KNeighborsClassifier(min(neighbours, len(known)), metric="cosine")
        nearest.fit(embeddings[known], classes[known])
        knn[asked] = nearest.predict(embeddings[asked]) == classes[asked]
        if len(set(classes[known])) < 2:  # nothing to fit
            linear[asked] = classes[known][0] == classes[asked]
            continue
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(
            embeddings[known], classes[known]
        )
        linear[asked] = probe.predict(embeddings[asked]) == classes[asked]
    return Separability(float(knn.mean()), float(linear.mean()), silhouette)
