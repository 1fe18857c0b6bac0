"""What a training needs from the preprocessed data set, and every error if something is wrong."""

import json
from pathlib import Path

import pytest

from nnunet_semcl.errors import InputError
from nnunet_semcl.files.training_input import check_training_input

NAME = "Dataset004_Hippocampus"


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A preprocessed data set with those parts of plans and dataset.json that the check reads."""
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    folder = tmp_path / NAME
    folder.mkdir()
    configurations = {
        "2d": configuration("2d", axes=2),
        "3d_fullres": configuration("3d_fullres", axes=3),
        "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
    }
    write(
        folder / "nnUNetPlans.json",
        {"dataset_name": NAME, "plans_name": "nnUNetPlans", "configurations": configurations},
    )
    described = {"labels": {"background": 0, "anterior": 1}, "channel_names": {"0": "MRI"}, "file_ending": ".nii.gz"}
    write(folder / "dataset.json", described)
    return folder


def configuration(name: str, axes: int) -> dict:
    return {
        "data_identifier": f"nnUNetPlans_{name}",
        "batch_size": 2,
        "patch_size": [8] * axes,
        "spacing": [1.0] * axes,
        "architecture": {"arch_kwargs": {"strides": [[1] * axes, [2] * axes], "features_per_stage": [8, 16]}},
    }


def write(file: Path, content: object) -> None:
    file.write_text(json.dumps(content))


def add_cases(dataset: Path, number: int, data_identifier: str = "nnUNetPlans_2d") -> None:
    (dataset / data_identifier).mkdir()
    for case in range(number):
        for ending in (".b2nd", "_seg.b2nd", ".pkl"):
            (dataset / data_identifier / f"case_{case}{ending}").touch()


def test_complete_training_input_passes_without_a_message(dataset: Path, capsys: pytest.CaptureFixture) -> None:
    add_cases(dataset, 5)
    for fold in ("0", "4", "all"):
        check_training_input("4", "2d", "nnUNetPlans", fold)
        check_training_input(NAME, "2d", "nnUNetPlans", fold)
    assert capsys.readouterr().out == ""


def test_a_cascade_needs_the_training_input_of_its_parent(dataset: Path) -> None:
    with pytest.raises(
        InputError, match="nnUNetPlans_3d_fullres contains no preprocessed cases of configuration 3d_cascade_fullres"
    ):
        check_training_input("4", "3d_cascade_fullres", "nnUNetPlans", "0")
    add_cases(dataset, 5, "nnUNetPlans_3d_fullres")
    check_training_input("4", "3d_cascade_fullres", "nnUNetPlans", "0")


@pytest.mark.parametrize(
    ("configuration", "plans", "fold", "message"),
    [
        ("3d_lowres", "nnUNetPlans", "0", "has no configuration '3d_lowres', only 2d, 3d_fullres, 3d_cascade"),
        ("2d", "nnUNetTinyPlans", "0", "nnUNetTinyPlans.json does not exist, available plans: nnUNetPlans"),
        ("3d_fullres", "nnUNetPlans", "0", "nnUNetv2_preprocess -d 4 -plans_name nnUNetPlans -c 3d_fullres"),
        ("2d", "nnUNetPlans", "-1", "fold: '-1' is not 'all' or a whole number"),
        ("2d", "nnUNetPlans", "first", "fold: 'first' is not"),
    ],
)
def test_refuses_training_input(dataset: Path, configuration: str, plans: str, fold: str, message: str) -> None:
    add_cases(dataset, 5)
    with pytest.raises(InputError, match=message):
        check_training_input("4", configuration, plans, fold)


def test_few_cases_need_fold_all_or_their_own_splits(dataset: Path) -> None:
    add_cases(dataset, 4)
    with pytest.raises(
        InputError, match=r"4 preprocessed cases.* 5 folds, and splits_final\.json does not exist\. Train with fold all"
    ):
        check_training_input("4", "2d", "nnUNetPlans", "0")
    check_training_input("4", "2d", "nnUNetPlans", "all")
    write(dataset / "splits_final.json", [{"train": ["case_0", "case_1"], "val": ["case_2", "case_3"]}])
    check_training_input("4", "2d", "nnUNetPlans", "0")
    write(dataset / "splits_final.json", {"train": [], "val": []})
    with pytest.raises(InputError, match=r"splits_final\.json contains an object, not a list of folds"):
        check_training_input("4", "2d", "nnUNetPlans", "0")


def test_a_fold_beyond_the_splits_prints_one_line(dataset: Path, capsys: pytest.CaptureFixture) -> None:
    add_cases(dataset, 6)
    check_training_input("4", "2d", "nnUNetPlans", "5")
    write(dataset / "splits_final.json", [{"train": ["case_0"], "val": ["case_1"]}] * 2)
    check_training_input("4", "2d", "nnUNetPlans", "2")
    check_training_input("4", "2d", "nnUNetPlans", "1")
    first, second = capsys.readouterr().out.splitlines()
    assert "fold 5 is not among the 5 folds" in first
    assert "fold 2 is not among the 2 folds" in second
    assert "80:20" in second
