"""Table and figure of label_efficiency.py's rows: Dice of each trainer, and differences with the seed as the unit."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from nnunet_semcl.evaluation.statistics import holm, mean_by_seed, t_interval, two_way_bootstrap

Budget = tuple[int, str]  # steps, labelled cases


def report(rows: list[dict], trainers: list[str]) -> str:
    """Markdown: a table of trainers for each budget, and one of their differences.

    Dice in percent. A difference is the mean over seeds of the mean over patients. p is that of a t-test over seeds,
    adjusted for all differences of the report (Holm).
    """
    parts = []
    differences = [
        (budget, trainer, other, paired(rows, budget, trainer, other))
        for budget in budgets(rows)
        for i, trainer in enumerate(trainers)
        for other in trainers[:i]
    ]
    differences = [entry for entry in differences if entry[3]]
    tests = [t_interval(list(mean_by_seed(by_seed).values())) for *_, by_seed in differences]
    adjusted = holm([p for _, p in tests])
    for budget in budgets(rows):
        steps, labelled = budget
        parts += [f"\n**{labelled} labelled, {steps} steps**\n", *_trainer_table(rows, budget, trainers)]
        lines = [
            "",
            "| difference | mean | 95 %, seeds and patients redrawn | 95 %, t over seeds | p (Holm) | each seed |",
        ]
        lines.append("|---|---|---|---|---|---|")
        for (of, trainer, other, by_seed), ((low, high), _), p in zip(differences, tests, adjusted, strict=True):
            if of == budget:
                seeds = list(mean_by_seed(by_seed).values())
                drawn = two_way_bootstrap(by_seed)
                lines.append(
                    f"| {trainer} - {other} | {np.mean(seeds):+.2f} | [{drawn.low:+.2f}, {drawn.high:+.2f}] "
                    f"| [{low:+.2f}, {high:+.2f}] | {p:.2g} | {' '.join(f'{value:+.1f}' for value in seeds)} |"
                )
        parts += lines
    return "\n".join(parts)


def _trainer_table(rows: list[dict], budget: Budget, trainers: list[str]) -> list[str]:
    lines = ["| trainer | Dice | each seed | ASD, mm | HD95, mm | objects missed | minutes a run |"]
    lines.append("|---|---|---|---|---|---|---|")
    for trainer in trainers:
        own = [row for row in rows if _is_of(row, trainer, budget)]
        seeds = mean_by_seed(dice_by_patient(rows, budget, trainer))
        if not seeds:
            continue
        cases = [case for row in own for case in row["cases"].values()]
        minutes = [row["seconds"] / 60 for row in own if row["seconds"]]
        duration = f"{np.mean(minutes):.1f}" if minutes else "not known"
        lines.append(
            f"| {trainer} | {np.mean(list(seeds.values())):.1f} | {' '.join(f'{v:.1f}' for v in seeds.values())} "
            f"| {mean_of(cases, 'asd'):.2f} | {mean_of(cases, 'hd95'):.2f} "
            f"| {sum(case.get('missed', 0) for case in cases)} | {duration} |"
        )
    return lines


def draw(rows: list[dict], trainers: list[str], file: Path) -> None:
    """Mean Dice over the number of labelled cases, a panel for each number of steps, a dot for each seed."""
    steps = sorted({row["steps"] for row in rows})
    if not steps:
        return
    labelled = sorted({row["labelled"] for row in rows}, key=_number)
    figure = Figure(figsize=(5 * len(steps), 4), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, number in zip(figure.subplots(1, len(steps), squeeze=False)[0], steps, strict=True):
        for trainer in trainers:
            means = [list(mean_by_seed(dice_by_patient(rows, (number, b), trainer)).values()) for b in labelled]
            known = [i for i, values in enumerate(means) if values]
            line = axis.plot(known, [np.mean(means[i]) for i in known], marker="o", label=trainer)[0]
            for i in known:
                axis.plot([i] * len(means[i]), means[i], ".", color=line.get_color(), alpha=0.5)
        axis.set(title=f"{number} steps", xlabel="labelled cases", ylabel="Dice, percent", xticks=range(len(labelled)))
        axis.set_xticklabels(labelled)
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(file, dpi=120)


def budgets(rows: list[dict]) -> list[Budget]:
    return sorted({(row["steps"], row["labelled"]) for row in rows}, key=lambda b: (b[0], _number(b[1])))


def dice_by_patient(rows: list[dict], budget: Budget, trainer: str) -> dict[int, dict[str, float]]:
    """Seed -> patient -> Dice in percent; cases of one patient (see `--group`) are averaged."""
    by_seed: dict[int, dict[str, float]] = {}
    for row in rows:
        if _is_of(row, trainer, budget):
            patients: dict[str, list[float]] = {}
            for case, measures in row["cases"].items():
                if "dice" in measures:
                    patients.setdefault(_patient(case, row.get("group")), []).append(100 * measures["dice"])
            by_seed[row["seed"]] = {patient: float(np.mean(values)) for patient, values in patients.items()}
    return by_seed


def paired(rows: list[dict], budget: Budget, trainer: str, other: str) -> dict[int, dict[str, float]]:
    """Seed -> patient -> trainer minus other, for what both have."""
    one, two = (dice_by_patient(rows, budget, name) for name in (trainer, other))
    return {
        seed: {patient: one[seed][patient] - two[seed][patient] for patient in one[seed].keys() & two[seed].keys()}
        for seed in one.keys() & two.keys()
    }


def mean_of(cases: Iterable[dict[str, float]], measure: str) -> float:
    values = [case[measure] for case in cases if measure in case]
    return float(np.mean(values)) if values else float("nan")


def _is_of(row: dict, trainer: str, budget: Budget) -> bool:
    return (row["trainer"], row["steps"], row["labelled"]) == (trainer, *budget)


def _patient(case: str, group: str | None) -> str:
    match = re.search(group, case) if group else None
    return match.group() if match else case


def _number(labelled: str) -> float:
    return float("inf") if labelled == "all" else int(labelled)
