"""The folder of unlabelled cases: which cases are complete, and which plans may use them."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path

import pytest
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_semcl.data.unlabelled import check_unlabelled, preprocessing_settings, unlabelled_cases, unlabelled_folder
from nnunet_semcl.errors import InputError

DATASET_JSON = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1}}
PLANS = {
    "plans_name": "nnUNetPlans",
    "image_reader_writer": "SimpleITKIO",
    "transpose_forward": [0, 1, 2],
    "foreground_intensity_properties_per_channel": {"0": {"mean": 80.123456789, "std": 20.0}},
    "configurations": {
        "2d": {
            "data_identifier": "nnUNetPlans_2d",
            "preprocessor_name": "DefaultPreprocessor",
            "batch_size": 12,
            "patch_size": [128, 128],
            "spacing": [0.78125, 0.78125],
            "normalization_schemes": ["CTNormalization"],
            "use_mask_for_norm": [False],
            "resampling_fn_data": "resample_data_or_seg_to_shape",
            "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None},
            "resampling_fn_seg": "resample_data_or_seg_to_shape",
            "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None},
            "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
            "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1},
            "architecture": {"network_class_name": "PlainConvUNet"},
        }
    },
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One complete case, preprocessed with PLANS."""
    plans = PlansManager(PLANS)
    folder = unlabelled_folder(tmp_path, plans.get_configuration("2d"))
    folder.mkdir()
    add_case(folder, "scan")
    settings = preprocessing_settings(plans, plans.get_configuration("2d"), DATASET_JSON)
    (folder / "preprocessing.json").write_text(json.dumps(settings))
    return folder


def add_case(folder: Path, case: str) -> None:
    for ending in (".b2nd", "_seg.b2nd", ".pkl"):
        (folder / f"{case}{ending}").touch()


def check(
    folder: Path, plans_changes: dict | None = None, changes_2d: dict | None = None, dataset_json: dict = DATASET_JSON
) -> None:
    content = deepcopy(PLANS) | (plans_changes or {})
    content["configurations"]["2d"] |= changes_2d or {}
    plans = PlansManager(content)
    check_unlabelled(folder, plans, plans.get_configuration("2d"), dataset_json)


def test_a_case_counts_if_it_has_all_its_files(folder: Path) -> None:
    for name in ("b.b2nd", "b_seg.b2nd", "c.pkl", "d.b2nd", "d.pkl", "e_seg.b2nd", "e.pkl"):
        (folder / name).touch()
    add_case(folder, "a.5")
    assert unlabelled_cases(folder) == ["a.5", "scan"]
    assert unlabelled_cases(folder / "none") == []


def test_the_folder_is_not_nnunets_own(folder: Path) -> None:
    assert folder.name == "nnUNetPlans_2d_unlabelled"


@pytest.mark.parametrize(
    "changed",
    [
        {"plans_changes": {"plans_name": "nnUNetTinyPlans"}},
        {"changes_2d": {"batch_size": 2, "patch_size": [64, 64], "architecture": {"network_class_name": "Tiny"}}},
        {"changes_2d": {"resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 0}}},
        {"dataset_json": DATASET_JSON | {"labels": {"background": 0}, "numTraining": 7}},
    ],
)
def test_settings_that_no_case_depends_on_may_change(folder: Path, changed: dict) -> None:
    check(folder, **changed)


@pytest.mark.parametrize(
    ("key", "changed"),
    [
        *[
            (key, {"changes_2d": {key: value}})
            for key, value in {
                "preprocessor_name": "MyPreprocessor",
                "spacing": [0.78125, 0.78126],
                "normalization_schemes": ["ZScoreNormalization"],
                "use_mask_for_norm": [True],
                "resampling_fn_data": "resample_torch",
                "resampling_fn_data_kwargs": {"is_seg": False, "order": 1},
                "resampling_fn_seg": "resample_torch",
                "resampling_fn_seg_kwargs": {"is_seg": True, "order": 0},
            }.items()
        ],
        ("transpose_forward", {"plans_changes": {"transpose_forward": [2, 0, 1]}}),
        ("image_reader_writer", {"plans_changes": {"image_reader_writer": "NibabelIO"}}),
        (
            "foreground_intensity_properties_per_channel",
            {
                "plans_changes": {
                    "foreground_intensity_properties_per_channel": {"0": {"mean": 80.12345679, "std": 20.0}}
                }
            },
        ),
        ("channel_names", {"dataset_json": {"channel_names": {"0": "MRI"}}}),
    ],
)
def test_cases_preprocessed_with_other_plans_are_refused(folder: Path, key: str, changed: dict) -> None:
    message = rf"2d_unlabelled holds cases preprocessed with another {key} than in nnUNetPlans\. Move the folder away"
    with pytest.raises(InputError, match=message):
        check(folder, **changed)


def test_cases_without_a_record_are_refused_but_not_a_folder_without_cases(folder: Path) -> None:
    (folder / "preprocessing.json").unlink()
    message = r"2d_unlabelled holds cases without a preprocessing\.json.*Move the folder away"
    with pytest.raises(InputError, match=message):
        check(folder)
    (folder / "scan.pkl").unlink()
    check(folder)
    check(folder / "none")
