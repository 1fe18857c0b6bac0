"""Seeds as units: the intervals against scipy, against plain loops, and on data whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from nnunet_semcl.evaluation.statistics import holm, mean_by_seed, t_interval, two_way_bootstrap

probabilities = st.lists(st.floats(0, 1), min_size=1, max_size=8)


def test_t_interval_equals_the_formula():
    means = [0.5, 1.5, 1.0, 2.5, -0.5]
    (low, high), p = t_interval(means)
    half = stats.t.ppf(0.975, 4) * np.std(means, ddof=1) / math.sqrt(5)
    assert (low, high) == pytest.approx((1 - half, 1 + half))
    t = 1 / (np.std(means, ddof=1) / math.sqrt(5))
    assert p == pytest.approx(2 * stats.t.sf(t, 4))


def test_t_interval_of_one_seed_and_of_equal_seeds():
    (low, _), p = t_interval([3.0])
    assert math.isnan(low)
    assert math.isnan(p)
    assert t_interval([2.0, 2.0]) == ((2.0, 2.0), 0.0)
    assert t_interval([0.0, 0.0])[1] == 1.0


@given(probabilities)
def test_holm_equals_its_definition(p_values: list[float]):
    order = np.argsort(p_values, kind="stable")
    expected = np.empty(len(p_values))
    for rank, i in enumerate(order):
        factors = [(len(p_values) - k) * p_values[order[k]] for k in range(rank + 1)]
        expected[i] = min(1, max(factors))
    assert holm(p_values) == pytest.approx(expected.tolist())


def test_holm_leaves_out_what_has_no_p():
    assert holm([float("nan"), 0.02])[1] == 0.02


def plain_bootstrap(matrix: np.ndarray, draws: int) -> np.ndarray:
    """Both axes redrawn, one loop a draw."""
    rng = np.random.default_rng(1)
    seeds, patients = matrix.shape
    drawn = [matrix[np.ix_(rng.integers(0, seeds, seeds), rng.integers(0, patients, patients))] for _ in range(draws)]
    return np.quantile([m.mean() for m in drawn], [0.025, 0.975])


def test_two_way_bootstrap_equals_plain_loops():
    matrix = np.random.default_rng(0).normal(1, 1, (5, 1)) + np.random.default_rng(1).normal(0, 2, (5, 12))
    differences = {s: {f"patient{p}": matrix[s, p] for p in range(12)} for s in range(5)}
    assert two_way_bootstrap(differences, 20000) == pytest.approx(plain_bootstrap(matrix, 20000), abs=0.05)


def test_seeds_with_other_patients_are_resampled_each_within_its_own():
    differences = {0: {"a": 1.0, "b": 1.0}, 1: {"c": 3.0}}
    low, high = two_way_bootstrap(differences)
    assert (low, high) == (1.0, 3.0)
    assert mean_by_seed(differences) == {0: 1.0, 1: 3.0}


def test_the_interval_is_wide_where_seeds_differ_however_many_patients_there_are():
    """What a bootstrap over cases alone gets wrong."""
    differences = {s: {f"patient{p}": value for p in range(100)} for s, value in enumerate((7.0, -4.0))}
    assert two_way_bootstrap(differences) == (-4.0, 7.0)


def test_nothing_to_resample():
    with pytest.raises(ValueError, match="at least one seed"):
        two_way_bootstrap({})
    with pytest.raises(ValueError, match="at least one patient"):
        two_way_bootstrap({0: {}})
