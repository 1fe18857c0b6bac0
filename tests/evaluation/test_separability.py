"""Figures of embeddings against plain formulas, and that no case helps to classify itself."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from nnunet_semcl.evaluation.separability import separability


def data(seed: int = 0, noise: float = 0.6) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three classes in four cases."""
    rng = np.random.default_rng(seed)
    classes = np.tile(np.repeat(["a", "b", "c"], 5), 4)
    cases = np.repeat(["w", "x", "y", "z"], 15)
    directions = dict(zip("abc", np.eye(3, 6), strict=True))
    embeddings = np.stack([directions[of] for of in classes]) + noise * rng.standard_normal((60, 6))
    return embeddings, classes, cases


def test_nearest_neighbours_are_those_of_the_plain_formula() -> None:
    embeddings, classes, cases = data()
    distances = cdist(embeddings, embeddings, "cosine")
    right = []
    for row, own_class, own_case in zip(distances, classes, cases, strict=True):
        others = np.flatnonzero(cases != own_case)
        right.append(classes[others[row[others].argmin()]] == own_class)
    assert 0.4 < np.mean(right) < 1
    assert separability(embeddings, classes, cases, neighbours=1).knn == pytest.approx(np.mean(right))


def test_the_silhouette_is_that_of_the_plain_formula() -> None:
    embeddings, classes, cases = data()
    distances = cdist(embeddings, embeddings, "cosine")
    values = []
    for number, own in enumerate(classes):
        mean = {of: distances[number][(classes == of) & (np.arange(60) != number)].mean() for of in "abc"}
        inside, outside = mean.pop(own), min(value for of, value in mean.items() if of != own)
        values.append((outside - inside) / max(inside, outside))
    assert separability(embeddings, classes, cases, 5).silhouette == pytest.approx(np.mean(values))


def test_separated_classes_are_all_told_apart() -> None:
    figures = separability(*data(noise=0.01), neighbours=5)
    assert figures.knn == figures.linear == 1
    assert figures.silhouette > 0.95


def test_no_case_classifies_itself() -> None:
    """Within each case the classes are apart, but along a direction that is its own: other cases know nothing."""
    classes, cases = np.tile(np.repeat(["a", "b"], 10), 2), np.repeat(["x", "y"], 20)
    sign = np.where(classes == "a", 1.0, -1.0) * np.where(cases == "x", 1.0, -1.0)
    embeddings = np.outer(sign, [1.0, 0.5]) + 0.01 * np.random.default_rng(0).standard_normal((40, 2))
    figures = separability(embeddings, classes, cases, neighbours=1)
    assert figures.knn == figures.linear == 0


@pytest.mark.parametrize(
    ("classes", "cases", "defined"),
    [("aabb", "xxxx", {"silhouette"}), ("aaaa", "xxyy", set()), ("aabb", "xyxy", {"knn", "linear", "silhouette"})],
)
def test_what_is_not_defined_is_nan(classes: str, cases: str, defined: set[str]) -> None:
    embeddings = np.random.default_rng(0).standard_normal((4, 3))
    figures = separability(embeddings, np.array(list(classes)), np.array(list(cases)), neighbours=5)
    assert {name for name, value in vars(figures).items() if not np.isnan(value)} == defined


def test_a_class_that_the_other_cases_lack_is_never_found() -> None:
    embeddings, classes, cases = np.eye(3), np.array(["a", "a", "b"]), np.array(["x", "y", "y"])
    figures = separability(embeddings, classes, cases, neighbours=1)
    assert figures.linear == pytest.approx(1 / 3)  # y is classified by x, which has a alone; x by a and b
