"""Dice per case and organ, and the table that compares trainers."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_semcl.errors import InputError
from nnunet_semcl.evaluation.dice_table import dice_by_case, dice_table, mean_dice, read_summary

LABELS = {"liver": 1, "spleen": 2, "aorta": 3}


def write(folder: Path, name: str, labels: list[int]) -> None:
    folder.mkdir(exist_ok=True)
    volume = np.array(labels, dtype=np.uint8).reshape(2, 2, 3)
    sitk.WriteImage(sitk.GetImageFromArray(volume), str(folder / f"{name}.nii.gz"))


def test_dice_equals_values_worked_by_hand(tmp_path: Path) -> None:
    truth, predicted = tmp_path / "truth", tmp_path / "predicted"
    write(truth, "a", [1, 1, 1, 1, 2, 2, 0, 0, 0, 0, 0, 0])
    write(predicted, "a", [1, 1, 1, 0, 0, 0, 1, 1, 1, 2, 0, 0])
    write(truth, "b", [0] * 12)
    write(predicted, "b", [2] + [0] * 11)
    dice = dice_by_case(predicted, truth, LABELS)
    assert set(dice) == {"a", "b"}
    assert dice["a"]["liver"] == pytest.approx(2 * 3 / (4 + 6))
    assert dice["a"]["spleen"] == 0
    assert math.isnan(dice["a"]["aorta"])
    assert dice["b"]["spleen"] == 0
    assert math.isnan(dice["b"]["liver"])
    assert read_summary(predicted / "summary.json", LABELS)["a"]["liver"] == dice["a"]["liver"]


def test_predictions_and_truth_must_contain_the_same_cases(tmp_path: Path) -> None:
    truth, predicted = tmp_path / "truth", tmp_path / "predicted"
    write(truth, "a", [0] * 12)
    write(truth, "b", [0] * 12)
    write(predicted, "a", [0] * 12)
    write(predicted, "c", [0] * 12)
    with pytest.raises(
        InputError, match=r"predicted does not contain .*: 1 missing \['b.nii.gz'\], 1 without truth \['c.nii.gz'\]"
    ):
        dice_by_case(predicted, truth, LABELS)
    with pytest.raises(InputError, match=r"elsewhere contains no file \*\.nii\.gz\. Give the folder"):
        dice_by_case(predicted, tmp_path / "elsewhere", LABELS)


def test_summary_must_exist_and_contain_the_labels(tmp_path: Path) -> None:
    summary = tmp_path / "summary.json"
    with pytest.raises(InputError, match=r"summary\.json does not exist.*nnUNetv2_evaluate_simple"):
        read_summary(summary, LABELS)
    case = {"metrics": {"1": {"Dice": 0.5}, "2": {"Dice": 0.5}}, "prediction_file": "x/a.nii.gz"}
    summary.write_text(json.dumps({"metric_per_case": [case], "mean": {}}))
    assert read_summary(summary, {"liver": 1}) == {"a": {"liver": 0.5}}
    with pytest.raises(InputError, match=r"summary\.json has no Dice of aorta\. Evaluate with all labels"):
        read_summary(summary, LABELS)


NAN = float("nan")
FIRST = {"a": {"liver": 0.8, "spleen": 0.4}, "b": {"liver": 0.6, "spleen": NAN}}
SECOND = {"a": {"liver": 0.9, "spleen": 0.2}, "b": {"liver": 0.7, "spleen": NAN}}


def test_means_leave_out_cases_without_the_organ() -> None:
    assert mean_dice(FIRST) == pytest.approx({"liver": 0.7, "spleen": 0.4, "mean": 0.55})


def test_table_of_two_trainers() -> None:
    assert dice_table({"nnUNetTrainer": FIRST, "SemCL": SECOND}).splitlines() == [
        "organ   nnUNetTrainer  SemCL  difference",
        "----------------------------------------",
        "liver           0.700  0.800      +0.100",
        "spleen          0.400  0.200      -0.200",
        "----------------------------------------",
        "mean            0.550  0.500      -0.050",
    ]


def test_table_of_one_and_of_three_trainers_has_no_difference() -> None:
    assert "difference" not in dice_table({"A": FIRST})
    three = dice_table({"A": FIRST, "B": SECOND, "C": FIRST})
    assert "difference" not in three
    assert three.splitlines()[-1].split() == ["mean", "0.550", "0.500", "0.550"]


def test_an_organ_in_no_case_is_a_dash() -> None:
    table = dice_table({"A": {"a": {"liver": 0.5, "spleen": NAN}}, "B": {"a": {"liver": 0.5, "spleen": 0.5}}})
    assert table.splitlines()[3].split() == ["spleen", "-", "0.500", "-"]
    assert table.splitlines()[-1].split() == ["mean", "0.500", "0.500", "+0.000"]
