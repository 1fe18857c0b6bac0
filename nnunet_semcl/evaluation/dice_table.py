"""Dice per case and organ from nnU-Net's own evaluation, and a plain-text table that compares trainers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder_simple, load_summary_json

from nnunet_semcl.errors import InputError

CaseDice = dict[str, dict[str, float]]
"""Dice by case, then by organ; NaN if neither the truth nor the prediction contains the organ."""


def dice_by_case(predictions: Path, truth: Path, labels: dict[str, int], file_ending: str = ".nii.gz") -> CaseDice:
    """Evaluates a folder of predictions and writes nnU-Net's summary.json into it.

    nnU-Net evaluates in a spawned process, so the calling module must be importable.

    Args:
        predictions: folder with one segmentation per case.
        truth: folder with the true segmentations, under the same names.
        labels: organ -> value in the segmentations.
        file_ending: file ending of all segmentations.

    Raises:
        InputError: there are no true segmentations, or the two folders contain different cases.
    """
    expected, found = ({f.name for f in folder.glob(f"*{file_ending}")} for folder in (truth, predictions))
    if not expected:
        raise InputError(f"{truth} contains no file *{file_ending}", "Give the folder of the true segmentations.")
    if expected != found:
        missing, extra = sorted(expected - found), sorted(found - expected)
        difference = f"{len(missing)} missing {missing[:3]}, {len(extra)} without truth {extra[:3]}"
        raise InputError(
            f"{predictions} does not contain the cases of {truth}: {difference}",
            "Predict exactly the cases of the truth.",
        )
    summary = predictions / "summary.json"
    compute_metrics_on_folder_simple(str(truth), str(predictions), list(labels.values()), str(summary), num_processes=1)
    return read_summary(summary, labels, file_ending)


def read_summary(summary: Path, labels: dict[str, int], file_ending: str = ".nii.gz") -> CaseDice:
    """Reads Dice from nnU-Net's summary.json, of a test set or of a fold's validation folder.

    Args:
        summary: the file.
        labels: organ -> value in the segmentations.
        file_ending: file ending of the segmentations.

    Raises:
        InputError: the file does not exist, or lacks a label.
    """
    values = " ".join(str(value) for value in labels.values())
    fix = f"Evaluate with all labels: nnUNetv2_evaluate_simple TRUTH {summary.parent} -l {values} -o {summary}"
    if not summary.is_file():
        raise InputError(f"{summary} does not exist", fix)
    dice: CaseDice = {}
    for case in load_summary_json(str(summary))["metric_per_case"]:
        metrics = case["metrics"]
        absent = [organ for organ, value in labels.items() if value not in metrics]
        if absent:
            raise InputError(f"{summary} has no Dice of {', '.join(absent)}", fix)
        name = Path(case["prediction_file"]).name.removesuffix(file_ending)
        dice[name] = {organ: float(metrics[value]["Dice"]) for organ, value in labels.items()}
    return dice


def mean_dice(cases: CaseDice) -> dict[str, float]:
    """Each organ's mean over the cases that contain it, and as "mean" the mean of these, nnU-Net's foreground_mean."""
    organs = list(next(iter(cases.values())))
    means = {organ: _mean([case[organ] for case in cases.values()]) for organ in organs}
    return means | {"mean": _mean(list(means.values()))}


def dice_table(dice_of_trainer: dict[str, CaseDice]) -> str:
    """One row per organ and one for the mean, one column per trainer; for two trainers also second minus first."""
    columns = {trainer: mean_dice(cases) for trainer, cases in dice_of_trainer.items()}
    names = list(next(iter(columns.values())))
    text = {trainer: [_figure(column[name]) for name in names] for trainer, column in columns.items()}
    if len(columns) == 2:
        first, second = columns.values()
        text["difference"] = [_figure(second[name] - first[name], "+.3f") for name in names]
    first_width = max(len(name) for name in ("organ", *names))
    widths = {title: max(len(title), *map(len, figures)) for title, figures in text.items()}
    rule = "-" * (first_width + sum(2 + width for width in widths.values()))
    lines = ["organ".ljust(first_width) + "".join("  " + title.rjust(widths[title]) for title in text), rule]
    for row, name in enumerate(names):
        lines.append(name.ljust(first_width) + "".join("  " + text[t][row].rjust(widths[t]) for t in text))
    lines.insert(-1, rule)
    return "\n".join(lines)


def _mean(values: list[float]) -> float:
    known = [v for v in values if not np.isnan(v)]
    return float(np.mean(known)) if known else float("nan")


def _figure(value: float, form: str = ".3f") -> str:
    return "-" if np.isnan(value) else format(value, form)
