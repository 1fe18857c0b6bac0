"""The order in which cases are labelled: worked by hand, and against a plain greedy loop."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cosine

from nnunet_semcl.evaluation.next_cases import order_cases


def direction(degrees: float) -> np.ndarray:
    return np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])


LABELLED = [direction(0)]


def test_both_ranks_count() -> None:
    # a is the most unsure and like the labelled case; c is the least unsure and the farthest; b is second in both.
    # Ranks a: 1 + 3, b: 2 + 2, c: 3 + 1, all alike, so the most unsure is first.
    features = {"a": direction(10), "b": direction(60), "c": direction(90)}
    ordered = order_cases({"a": 0.9, "b": 0.5, "c": 0.1}, features, LABELLED)
    assert [entry.case for entry in ordered] == ["a", "b", "c"]
    assert [entry.unsure for entry in ordered] == [0.9, 0.5, 0.1]
    # After b was chosen, c is as far from it as 30 degrees.
    expected = [1 - np.cos(np.radians(angle)) for angle in (10, 50, 30)]
    assert [entry.different for entry in ordered] == pytest.approx(expected)


def test_what_is_chosen_counts_as_labelled() -> None:
    """Of two twins the second is no longer different once the first is chosen; before, it was above the other."""
    features = {"twin 1": direction(90), "twin 2": direction(90), "other": direction(-60)}
    ordered = order_cases({"twin 1": 0.9, "other": 0.8, "twin 2": 0.7}, features, LABELLED)
    assert [entry.case for entry in ordered] == ["twin 1", "other", "twin 2"]
    assert ordered[2].different == pytest.approx(0, abs=1e-9)


def test_equally_unsure_cases_are_taken_farthest_first() -> None:
    rng = np.random.default_rng(0)
    features = {f"case {number}": rng.standard_normal(8) for number in range(12)}
    labelled = list(rng.standard_normal((3, 8)))
    ordered = [entry.case for entry in order_cases(dict.fromkeys(features, 0.5), features, labelled)]
    known, left, expected = list(labelled), dict(features), []
    while left:
        farthest = max(left, key=lambda case: min(cosine(left[case], other) for other in known))
        expected.append(farthest)
        known.append(left.pop(farthest))
    assert ordered == expected


def test_equally_different_cases_are_taken_most_unsure_first() -> None:
    unsure = {"a": 0.1, "b": 0.4, "c": 0.3}
    features = dict.fromkeys(unsure, direction(0))
    assert [entry.case for entry in order_cases(unsure, features, LABELLED)] == ["b", "c", "a"]


def test_a_case_without_features_is_unlike_all() -> None:
    """As of a case in which the network sees no foreground."""
    ordered = order_cases({"a": 0.0, "b": 0.0}, {"a": direction(5), "b": np.zeros(2)}, LABELLED)
    assert ordered[0].case == "b"
    assert ordered[0].different == 1


def test_nothing_to_order() -> None:
    assert order_cases({}, {}, LABELLED) == []
