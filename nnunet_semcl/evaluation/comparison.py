"""Paired comparison of predictions of the same cases: differences, their intervals and tests.

The unit is the case, or the group of cases of one patient. This asks whether one model is better than another on such
cases; whether a method is better takes several trainings (see statistics.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from scipy import stats

from nnunet_semcl.evaluation.metrics import MEASURES, Measures
from nnunet_semcl.evaluation.statistics import Interval, holm, two_way_bootstrap
from nnunet_semcl.files.groups import group_of

MEAN = "mean"  # over the classes of a case

Values = Mapping[str, Mapping[str, Measures]]
"""Case -> class -> measures; NaN where one is not defined."""


@dataclass(frozen=True)
class Row:
    """A measure of a class, of one side and of the first one.

    Attributes:
        side, measure, of_class: what it is of.
        first, second: means over the units that both sides have a value for.
        units: their number.
        interval: of the mean difference, 95 %, by bootstrap over units.
        p: Wilcoxon's signed-rank test, by Holm adjusted; NaN where all differences are 0.
    """

    side: str
    measure: str
    of_class: str
    first: float
    second: float
    units: int
    interval: Interval
    p: float

    @property
    def difference(self) -> float:
        return self.second - self.first


@dataclass(frozen=True)
class Comparison:
    """Predictions of two or more sides, of which the first is what the others are compared with.

    Attributes:
        values: side -> its values; all sides have the same cases and classes.
        group: a pattern that finds the patient's name in a case's; None: each case is of its own.
    """

    values: Mapping[str, Values]
    group: str | None = None
    classes: list[str] = field(init=False)

    def __post_init__(self) -> None:
        first = next(iter(self.values.values()))
        object.__setattr__(self, "classes", list(next(iter(first.values()))))

    @property
    def sides(self) -> list[str]:
        return list(self.values)

    @property
    def cases(self) -> list[str]:
        return list(self.values[self.sides[0]])

    def of_case(self, side: str, case: str, measure: str, of_class: str = MEAN) -> float:
        """A value. The mean is over the classes for which it is defined on all sides, so that like meets like."""
        if of_class != MEAN:
            return self.values[side][case][of_class][measure]
        each = np.array([[own[case][c][measure] for c in self.classes] for own in self.values.values()])
        known = ~np.isnan(each).any(0)
        return float(each[self.sides.index(side), known].mean()) if known.any() else float("nan")

    def pairs(self, side: str, measure: str, of_class: str = MEAN) -> dict[str, tuple[float, float]]:
        """Unit -> value of the first side and of this one, where both have one; cases of one group are averaged."""
        by_unit: dict[str, list[tuple[float, float]]] = {}
        for case in self.cases:
            pair = tuple(self.of_case(s, case, measure, of_class) for s in (self.sides[0], side))
            if not np.isnan(pair).any():
                by_unit.setdefault(group_of(case, self.group), []).append((pair[0], pair[1]))
        means = {unit: np.mean(own, axis=0).tolist() for unit, own in by_unit.items()}
        return {unit: (first, second) for unit, (first, second) in means.items()}

    @cached_property
    def rows(self) -> list[Row]:
        """A row for each side but the first, measure, and the mean or class, in this order.

        p of the means is adjusted for all means in the table, p of classes for the classes of one measure and side.
        """
        sides = self.sides[1:]
        means = [self._row(side, measure, MEAN) for side in sides for measure in MEASURES]
        rows = []
        for mean in _adjusted(means):
            rows.append(mean)
            rows += _adjusted([self._row(mean.side, mean.measure, of_class) for of_class in self.classes])
        return rows

    def _row(self, side: str, measure: str, of_class: str) -> Row:
        pairs = self.pairs(side, measure, of_class)
        nan = float("nan")
        if not pairs:
            return Row(side, measure, of_class, nan, nan, 0, Interval(nan, nan), nan)
        first, second = np.array(list(pairs.values())).T
        differences = second - first
        interval = two_way_bootstrap({0: dict(zip(pairs, differences.tolist(), strict=True))})
        p = float(stats.wilcoxon(differences).pvalue) if differences.any() else nan
        return Row(side, measure, of_class, float(first.mean()), float(second.mean()), len(pairs), interval, p)


def _adjusted(rows: list[Row]) -> list[Row]:
    return [replace(row, p=p) for row, p in zip(rows, holm([row.p for row in rows]), strict=True)]
