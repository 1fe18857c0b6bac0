"""Statistics of paired differences between two trainers, with the seed as the unit.

A seed is one choice of labelled cases and one training per trainer. The held-out cases of one seed share a model, so
they are not independent of each other; a test over cases would count one experiment many times.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

CONFIDENCE = 0.95

Differences = Mapping[int, Mapping[str, float]]
"""Seed -> patient -> difference of a measure between two trainers."""


class Interval(NamedTuple):
    low: float
    high: float


def mean_by_seed(differences: Differences) -> dict[int, float]:
    """Seed -> mean over its patients.

    >>> mean_by_seed({0: {"a": 1.0, "b": 3.0}, 1: {"a": 5.0}})
    {0: 2.0, 1: 5.0}
    """
    return {seed: float(np.mean(list(patients.values()))) for seed, patients in sorted(differences.items())}


def two_way_bootstrap(differences: Differences, draws: int = 5000) -> Interval:
    """Percentile interval of the mean difference, resampling seeds and patients together.

    In each draw, seeds that share their held-out patients also share the resampled patients, since how hard a patient
    is does not depend on the seed (two-way or "pigeonhole" bootstrap, Owen 2007, Annals of Applied Statistics 1(2)).

    Raises:
        ValueError: no seed, or a seed without patients.
    """
    if not differences or not all(differences.values()):
        raise ValueError("every seed needs at least one patient, and there must be at least one seed")
    rng = np.random.default_rng(0)
    cohorts: dict[tuple[str, ...], list[np.ndarray]] = {}  # patients -> a row of values for each seed
    for patients in differences.values():
        names = tuple(sorted(patients))
        cohorts.setdefault(names, []).append(np.array([patients[name] for name in names]))
    resampled = np.concatenate(
        [
            np.stack(rows)[:, rng.integers(0, len(names), (draws, len(names)))].mean(-1)  # (seeds, draws)
            for names, rows in cohorts.items()
        ]
    )
    seeds = rng.integers(0, len(resampled), (draws, len(resampled)))
    means = resampled[seeds, np.arange(draws)[:, None]].mean(-1)
    return Interval(*np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]).tolist())


def t_interval(means: Sequence[float]) -> tuple[Interval, float]:
    """Student's interval of the mean over seeds, and the two-sided p of the mean being zero; NaN for a single seed.

    >>> interval, p = t_interval([1.0, 2.0, 3.0])
    >>> f"[{interval.low:.2f}, {interval.high:.2f}], p = {p:.3f}"
    '[-0.48, 4.48], p = 0.074'
    """
    if len(means) < 2:
        return Interval(float("nan"), float("nan")), float("nan")
    if np.ptp(means) == 0:  # no spread: scipy would divide by zero
        return Interval(means[0], means[0]), float(means[0] == 0)
    test = stats.ttest_1samp(means, 0)
    interval = test.confidence_interval(CONFIDENCE)
    return Interval(float(interval.low), float(interval.high)), float(test.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for the number of claims in their family (Holm 1979); NaN stays NaN and counts as no claim.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted = [float("nan")] * len(p_values)
    order = sorted((i for i, p in enumerate(p_values) if not np.isnan(p)), key=lambda i: p_values[i])
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted
