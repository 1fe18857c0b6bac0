"""Table and figure of label_efficiency.py's rows: Dice of each trainer, and differences paired by case and seed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.stats import wilcoxon


def report(rows: list[dict], trainers: list[str]) -> str:
    """Dice of each trainer, and its paired differences from each of the others named before it."""
    lines = []
    for steps, labelled in sorted({(r["steps"], r["labelled"]) for r in rows}):
        lines.append(f"\n{labelled} labelled, {steps} steps")
        dice = {t: _dice_by_pair(rows, t, labelled, steps) for t in trainers}
        for trainer in trainers:
            seeds = _dice_by_seed(dice[trainer])
            each = " ".join(f"{100 * value:.1f}" for value in seeds.values())
            mean = 100 * np.mean(list(seeds.values())) if seeds else float("nan")
            cases = [case for r in rows if _is_of(r, trainer, labelled, steps) for case in r["cases"].values()]
            lines.append(
                f"  {trainer:40} {mean:6.2f}   seeds {each}   ASD {mean_of(cases, 'asd'):.2f} mm, "
                f"HD95 {mean_of(cases, 'hd95'):.2f} mm, {sum(case.get('missed', 0) for case in cases)} objects missed"
            )
        for i, trainer in enumerate(trainers):
            for other in trainers[:i]:
                pairs = sorted(dice[trainer].keys() & dice[other].keys())
                if pairs:
                    difference = np.array([dice[trainer][p] - dice[other][p] for p in pairs])
                    low, high = _confidence(difference, [case for _, case in pairs])
                    p = wilcoxon(difference).pvalue if difference.any() else 1.0
                    lines.append(
                        f"  {trainer} - {other}: {100 * difference.mean():+.2f} "
                        f"[{100 * low:+.2f}, {100 * high:+.2f}], p = {p:.2g}, {len(pairs)} pairs"
                    )
    return "\n".join(lines)


def draw(rows: list[dict], trainers: list[str], file: Path) -> None:
    steps = sorted({r["steps"] for r in rows})
    if not steps:
        return
    budgets = sorted({r["labelled"] for r in rows}, key=lambda b: float("inf") if b == "all" else int(b))
    figure = Figure(figsize=(5 * len(steps), 4), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, s in zip(figure.subplots(1, len(steps), squeeze=False)[0], steps, strict=True):
        for trainer in trainers:
            means = [list(_dice_by_seed(_dice_by_pair(rows, trainer, b, s)).values()) for b in budgets]
            known = [i for i, values in enumerate(means) if values]
            line = axis.plot(known, [np.mean(means[i]) for i in known], marker="o", label=trainer)[0]
            for i in known:
                axis.plot([i] * len(means[i]), means[i], ".", color=line.get_color(), alpha=0.5)
        axis.set(title=f"{s} steps", xlabel="labelled cases", ylabel="Dice", xticks=range(len(budgets)))
        axis.set_xticklabels(budgets)
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(file, dpi=120)


def _is_of(row: dict, trainer: str, labelled: str, steps: int) -> bool:
    return (row["trainer"], row["labelled"], row["steps"]) == (trainer, labelled, steps)


def _dice_by_pair(rows: list[dict], trainer: str, labelled: str, steps: int) -> dict[tuple[int, str], float]:
    return {
        (r["seed"], case): measures["dice"]
        for r in rows
        if _is_of(r, trainer, labelled, steps)
        for case, measures in r["cases"].items()
        if "dice" in measures
    }


def mean_of(cases: Iterable[dict[str, float]], measure: str) -> float:
    values = [case[measure] for case in cases if measure in case]
    return float(np.mean(values)) if values else float("nan")


def _dice_by_seed(dice: dict[tuple[int, str], float]) -> dict[int, float]:
    seeds: dict[int, list[float]] = defaultdict(list)
    for (seed, _), value in dice.items():
        seeds[seed].append(value)
    return {seed: float(np.mean(values)) for seed, values in sorted(seeds.items())}


def _confidence(difference: np.ndarray, cases: list[str], draws: int = 2000) -> tuple[float, float]:
    """95 % bootstrap interval of the mean, drawn by case: the seeds of one case belong together."""
    rng = np.random.default_rng(0)
    by_case: dict[str, list[float]] = defaultdict(list)
    for case, value in zip(cases, difference, strict=True):
        by_case[case].append(value)
    means = np.array([np.mean(values) for values in by_case.values()])
    drawn = rng.choice(means, (draws, len(means))).mean(1)
    return float(np.quantile(drawn, 0.025)), float(np.quantile(drawn, 0.975))
