"""The order in which cases are labelled: worked by hand, and against a plain greedy loop."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cosine

from nnunet_semcl.evaluation.next_cases import order_cases


def direction(degrees: float) -> np.ndarray:
    return np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])


LABELLED = [direction(0)]


def off(before: float, after: float) -> float:
    """What is taken off a cosine distance where an angle in degrees becomes a smaller one."""
    return np.cos(np.radians(after)) - np.cos(np.radians(before))


def test_both_ranks_count() -> None:
    # a is the most unsure and like the labelled case; c is the least unsure and brings most; b is second in both.
    # Ranks a: 1 + 3, b: 2 + 2, c: 3 + 1, all alike, so the most unsure is first.
    features = {"a": direction(10), "b": direction(60), "c": direction(130)}
    ordered = order_cases({"a": 0.9, "b": 0.5, "c": 0.1}, features, LABELLED)
    assert [entry.case for entry in ordered] == ["a", "b", "c"]
    assert [entry.unsure for entry in ordered] == [0.9, 0.5, 0.1]
    # a brings all three nearer by 10 degrees; then b itself, and c from 120 to 70; then c alone.
    expected = [off(10, 0) + off(60, 50) + off(130, 120), off(50, 0) + off(120, 70), off(70, 0)]
    assert [entry.represents for entry in ordered] == pytest.approx([total / 3 for total in expected])


def test_an_outlier_represents_itself_alone() -> None:
    """The farthest case is not the first: three others are like one another and unlike what is labelled."""
    features = {"outlier": direction(180), "b": direction(-60), "a": direction(-58), "c": direction(-62)}
    ordered = order_cases(dict.fromkeys(features, 0.5), features, LABELLED)
    assert [entry.case for entry in ordered[:2]] == ["c", "outlier"]
    assert ordered[0].represents > 0.25 * off(180, 0)


def test_what_is_chosen_counts_as_labelled() -> None:
    """Of two twins the second represents nothing once the first is chosen; before, it was above the other."""
    features = {"twin 1": direction(90), "twin 2": direction(90), "other": direction(-60)}
    ordered = order_cases({"twin 1": 0.9, "other": 0.8, "twin 2": 0.7}, features, LABELLED)
    assert [entry.case for entry in ordered] == ["twin 1", "other", "twin 2"]
    assert ordered[2].represents == pytest.approx(0, abs=1e-9)


def test_equally_unsure_cases_are_taken_as_they_cover_the_others() -> None:
    rng = np.random.default_rng(0)
    features = {f"case {number}": rng.standard_normal(8) for number in range(12)}
    labelled = list(rng.standard_normal((3, 8)))
    ordered = [entry.case for entry in order_cases(dict.fromkeys(features, 0.5), features, labelled)]

    def uncovered(known: list[np.ndarray]) -> float:
        return round(sum(min(cosine(vector, other) for other in known) for vector in features.values()), 9)

    known, left, expected = list(labelled), dict(sorted(features.items())), []
    while left:
        best = min(left, key=lambda case: uncovered([*known, left[case]]))
        expected.append(best)
        known.append(left.pop(best))
    assert ordered == expected


def test_cases_that_represent_as_much_are_taken_most_unsure_first() -> None:
    unsure = {"a": 0.1, "b": 0.4, "c": 0.3}
    features = dict.fromkeys(unsure, direction(0))
    assert [entry.case for entry in order_cases(unsure, features, LABELLED)] == ["b", "c", "a"]


def test_a_case_without_features_is_unlike_all_but_itself() -> None:
    """As of a case in which the network sees no foreground."""
    ordered = order_cases({"a": 0.0, "b": 0.0}, {"a": direction(5), "b": np.zeros(2)}, LABELLED)
    assert ordered[0].case == "b"
    assert ordered[0].represents == pytest.approx(1 / 2)


def test_nothing_to_order() -> None:
    assert order_cases({}, {}, LABELLED) == []
