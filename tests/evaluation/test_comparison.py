from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from nnunet_semcl.errors import InputError
from nnunet_semcl.evaluation.comparison import MEAN, Comparison
from nnunet_semcl.evaluation.metrics import MEASURES, Measures

NAN = float("nan")


def of(dice: float) -> Measures:
    return {"Dice": dice, "surface Dice": dice, "HD95": 10 * (1 - dice), "ASD": 1 - dice}


def comparison(sides: dict[str, list[list[float]]], group: str | None = None) -> Comparison:
    """Side -> Dice of each case (rows) and class."""
    values = {
        side: {f"p{i // 2}_{i}": {f"c{j}": of(dice) for j, dice in enumerate(row)} for i, row in enumerate(rows)}
        for side, rows in sides.items()
    }
    return Comparison(values, group)


def row(compared: Comparison, measure: str, of_class: str, side: str = "b"):
    return next(r for r in compared.rows if (r.side, r.measure, r.of_class) == (side, measure, of_class))


def test_means_differences_and_units() -> None:
    compared = comparison({"a": [[0.5, 0.7], [0.1, 0.3]], "b": [[0.6, 0.8], [0.4, 0.6]]})
    mean = row(compared, "Dice", MEAN)
    assert (mean.first, mean.second, mean.units) == pytest.approx((0.4, 0.6, 2))
    assert mean.difference == pytest.approx(0.2)
    assert row(compared, "HD95", "c1").difference == pytest.approx(-2)
    low, high = mean.interval
    assert (low, high) == pytest.approx((0.1, 0.3))


def test_what_one_side_lacks_is_left_out_on_both() -> None:
    compared = comparison({"a": [[0.5, NAN], [0.1, 0.3]], "b": [[0.6, 0.9], [0.4, NAN]]})
    of_class = row(compared, "Dice", "c1")
    assert of_class.units == 0
    assert math.isnan(of_class.difference)
    assert row(compared, "Dice", "c0").units == 2
    # So are the means of a case: the class that only one side has found would count on that side alone.
    assert [compared.of_case(side, "p0_0", "Dice") for side in "ab"] == [0.5, 0.6]
    assert [compared.of_case(side, "p0_1", "Dice") for side in "ab"] == [0.1, 0.4]


def test_cases_of_a_group_count_once() -> None:
    compared = comparison({"a": [[0.0], [0.2], [0.4], [0.6]], "b": [[0.1], [0.5], [0.5], [0.7]]}, group=r"p\d+")
    assert compared.pairs("b", "Dice") == {"p0": pytest.approx((0.1, 0.3)), "p1": pytest.approx((0.5, 0.6))}
    assert row(compared, "Dice", MEAN).units == 2


def test_a_pattern_without_a_match_is_refused() -> None:
    with pytest.raises(InputError, match=r"--group 'x' matches nothing in the case name 'p0_0'"):
        comparison({"a": [[0.0]], "b": [[0.1]]}, group="x").rows  # noqa: B018


def test_p_is_wilcoxons_adjusted_by_holm() -> None:
    rng = np.random.default_rng(0)
    a = rng.uniform(0.3, 0.6, (12, 3))
    b = a + rng.normal([0.1, 0.02, 0.0], 0.05, (12, 3))
    compared = comparison({"a": a.tolist(), "b": b.tolist()})
    raw = sorted((float(stats.wilcoxon(b[:, j] - a[:, j]).pvalue), f"c{j}") for j in range(3))
    largest = 0.0
    for rank, (p, of_class) in enumerate(raw):
        largest = max(largest, min(1, (3 - rank) * p))
        assert row(compared, "Dice", of_class).p == pytest.approx(largest, rel=1e-9)
    mean = stats.wilcoxon(b.mean(1) - a.mean(1)).pvalue
    # All four measures rise and fall with Dice here, so that the smallest p counts four times.
    assert row(compared, "Dice", MEAN).p == pytest.approx(min(1, len(MEASURES) * mean), rel=1e-9)


def test_equal_sides_have_no_p() -> None:
    assert math.isnan(row(comparison({"a": [[0.5], [0.6]], "b": [[0.5], [0.6]]}), "Dice", MEAN).p)


def test_each_side_is_compared_with_the_first() -> None:
    compared = comparison({"a": [[0.1]], "b": [[0.2]], "c": [[0.4]]})
    assert [round(row(compared, "Dice", MEAN, side).difference, 6) for side in ("b", "c")] == [0.1, 0.3]
    assert len(compared.rows) == 2 * len(MEASURES) * 2
