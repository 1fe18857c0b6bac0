"""Label budgets: which cases keep their labels, how nnU-Net reads the folds, and which input is rejected."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.crossval_split import generate_crossval_split

from nnunet_semcl.cli import main
from nnunet_semcl.commands.label_budget import add_label_budget, plain_split, with_few_labels
from nnunet_semcl.errors import InputError

NAME = "Dataset027_ACDC"
PATIENTS = [f"patient{number:03d}" for number in range(1, 13)]
CASES = [f"{patient}_frame{frame:02d}" for patient in PATIENTS for frame in (1, 12)]
PATIENT = r"patient\d+"


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A preprocessed data set of empty files: a split depends on the names of the files only."""
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    folder = tmp_path / NAME
    for data in ("nnUNetPlans_2d", "nnUNetPlans_3d_fullres"):
        preprocess(folder / data, CASES)
    return folder


def preprocess(data: Path, cases: list[str]) -> None:
    data.mkdir(parents=True)
    for case in cases:
        for ending in (".b2nd", "_seg.b2nd", ".pkl"):
            (data / f"{case}{ending}").touch()


def nnunets_split(folder: Path, fold: int) -> tuple[list[str], list[str]]:
    """The cases that nnU-Net's trainer trains and validates on. It also creates a missing splits_final.json."""
    trainer = SimpleNamespace(
        dataset_class=None,
        fold=fold,
        preprocessed_dataset_folder=str(folder / "nnUNetPlans_2d"),
        preprocessed_dataset_folder_base=str(folder),
        folder_with_segs_from_previous_stage=None,
        print_to_log_file=lambda *message: None,
    )
    return nnUNetTrainer.do_split(trainer)


def read(folder: Path) -> list[dict]:
    return json.loads((folder / "splits_final.json").read_text())


def write(folder: Path, splits: object) -> bytes:
    file = folder / "splits_final.json"
    file.write_text(json.dumps(splits))
    return file.read_bytes()


def patient(case: str) -> str:
    return case.split("_")[0]


# which cases keep their labels


def test_nnunets_own_split_is_created_first(dataset: Path) -> None:
    add_label_budget("27", 4)
    made = read(dataset)
    os.remove(dataset / "splits_final.json")
    nnunets_split(dataset, 0)
    assert made[:5] == read(dataset)
    assert len(made) == 10


def test_appends_a_fold_with_few_labels_for_each_full_fold(dataset: Path) -> None:
    assert add_label_budget("27", 4) == {0: 5, 1: 6, 2: 7, 3: 8, 4: 9}
    splits = read(dataset)
    for full, few in zip(splits[:5], splits[5:], strict=True):
        assert few["val"] == full["val"]
        assert len(few["train"]) == 4
        assert sorted(few["train"] + few["unlabelled"]) == sorted(full["train"])
        assert not {*few["train"]} & {*few["unlabelled"]}
    assert splits[7]["label_budget"] == {"fold": 2, "labelled": 4, "seed": 0, "group": None}


def test_nnunet_trains_on_the_labelled_cases_only(dataset: Path) -> None:
    add_label_budget("27", 4)
    before = read(dataset)
    for number in (0, 5, 9):
        assert nnunets_split(dataset, number) == (before[number]["train"], before[number]["val"])
    assert read(dataset) == before


CASE_NAMES = st.lists(st.from_regex(r"[a-z0-9]{1,6}", fullmatch=True), min_size=1, max_size=40, unique=True)


@given(CASE_NAMES, st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_a_smaller_choice_is_part_of_a_larger_one(cases: list[str], one: int, other: int, seed: int) -> None:
    fold = {"train": cases, "val": ["v"]}
    less, more = (with_few_labels(0, fold, n, seed) for n in sorted((one, other)))
    assert {*less["train"]} <= {*more["train"]}
    assert len(more["train"]) == min(max(one, other), len(cases))
    assert sorted(less["train"] + less["unlabelled"]) == sorted(cases)
    # the order in the file does not matter
    assert with_few_labels(0, {"train": cases[::-1], "val": ["v"]}, min(one, other), seed) == less


def test_the_seed_determines_the_choice() -> None:
    fold = {"train": CASES, "val": []}
    choices = {tuple(with_few_labels(0, fold, 4, seed)["train"]) for seed in range(20)}
    assert len(choices) > 15
    # every case is chosen equally often
    frequency = np.mean([CASES[0] in with_few_labels(0, fold, 12, seed)["train"] for seed in range(200)])
    assert 0.35 < frequency < 0.65


# groups


def test_groups_stay_together_and_are_split_as_nnunet_would(dataset: Path) -> None:
    assert add_label_budget("27", group=PATIENT) == {}
    splits = read(dataset)
    for fold, patients in zip(splits, generate_crossval_split(PATIENTS, seed=12345), strict=True):
        assert {*fold} == {"train", "val"}
        for side in ("train", "val"):
            assert {patient(case) for case in fold[side]} == {*patients[side]}
            assert len(fold[side]) == 2 * len(patients[side])
    assert sorted(case for fold in splits for case in fold["val"]) == CASES


def test_the_number_of_labelled_counts_groups(dataset: Path) -> None:
    add_label_budget("27", 3, group=PATIENT)
    few = read(dataset)[5:]
    assert len(few) == 5
    for fold in few:
        assert len({patient(case) for case in fold["train"]}) == 3
        assert len(fold["train"]) == 6
        assert not {patient(case) for case in fold["train"]} & {patient(case) for case in fold["unlabelled"]}
        assert fold["label_budget"]["group"] == PATIENT


@given(CASE_NAMES.filter(lambda cases: len(cases) >= 5))
def test_every_case_is_validated_once(cases: list[str]) -> None:
    splits = plain_split(cases)
    assert sorted(case for fold in splits for case in fold["val"]) == sorted(cases)
    assert all(sorted(fold["train"] + fold["val"]) == sorted(cases) for fold in splits)


# the file


def test_a_second_call_appends_nothing(dataset: Path, capsys: pytest.CaptureFixture) -> None:
    numbers = add_label_budget("27", 4, seed=1, group=PATIENT)
    first = capsys.readouterr().out
    before = (dataset / "splits_final.json").read_bytes()
    assert add_label_budget(NAME, 4, seed=1, group=PATIENT) == numbers
    second = capsys.readouterr().out
    assert (dataset / "splits_final.json").read_bytes() == before
    assert [line for line in second.splitlines() if line.startswith("fold")] == [
        line for line in first.splitlines() if line.startswith("fold")
    ]
    add_label_budget("27", group=PATIENT)
    assert (dataset / "splits_final.json").read_bytes() == before


def test_existing_folds_are_neither_changed_nor_moved(dataset: Path) -> None:
    own = [
        {"train": CASES[4:], "val": CASES[:4], "note": "by hand"},
        {"train": CASES[:3], "val": CASES[3:6], "unlabelled": CASES[6:]},
        {"val": CASES[20:], "train": CASES[:20]},
    ]
    write(dataset, own)
    assert add_label_budget("27", 2) == {0: 3, 2: 4}
    assert add_label_budget("27", 2, seed=1) == {0: 5, 2: 6}
    assert add_label_budget("27", 4) == {0: 7, 2: 8}
    assert add_label_budget("27", 2) == {0: 3, 2: 4}
    splits = read(dataset)
    assert splits[:3] == own
    assert [*splits[2]] == ["val", "train"]
    assert len(splits) == 9
    assert {*splits[3]["train"]} < {*splits[7]["train"]}
    assert sorted(path.name for path in dataset.iterdir() if path.is_file()) == ["splits_final.json"]


def test_a_failed_write_leaves_the_old_file_intact(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = write(dataset, plain_split(CASES))

    def full(self: Path, text: str) -> int:
        self.write_bytes(text[:100].encode())
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(InputError, match="No space"):
        add_label_budget("27", 4)
    assert (dataset / "splits_final.json").read_bytes() == before


def test_command(dataset: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["label-budget", "-d", "27", "--labelled", "3", "--seed", "7", "--group", PATIENT]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(str(dataset / "splits_final.json"))
    assert lines[0].endswith(r"5 folds created with the groups of 'patient\d+' kept together, 5 appended")
    # 12 patients with 2 cases each, 3 of the patients in the validation of fold 0
    assert lines[1] == "fold 0 -> fold 5: 6 labelled, 12 unlabelled, 6 validation cases"
    assert lines[-1] == "Train with few labels: nnUNetv2_train 27 CONFIGURATION 5 -tr SemCLTrainer"
    assert len(lines) == 7
    assert read(dataset)[5]["label_budget"] == {"fold": 0, "labelled": 3, "seed": 7, "group": PATIENT}

    assert main(["label-budget", "-d", "27"]) == 1
    assert "nothing to do" in capsys.readouterr().err


# errors of a user


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "without --labelled and --group there is nothing to do. Give at least one"),
        ({"labelled": 0}, "--labelled 0: at least one case has to keep its labels. Give 1 or more"),
        (
            {"labelled": 20},
            "--labelled 20: .*splits_final.json, fold 0 has only 19 training cases. Give 19 or fewer",
        ),
        ({"labelled": 10, "group": PATIENT}, "--labelled 10: .*fold 0 has only 9 groups of training cases"),
        ({"labelled": 1, "seed": -1}, "--seed -1: a seed cannot be negative. Give 0"),
        ({"group": "patient("}, r"--group 'patient\(' is not a regular expression \(.*\)\. Fix the pattern"),
        ({"group": "patient00"}, "--group 'patient00' matches nothing in the case name 'patient010_frame01'. Give"),
        ({"group": "x*"}, r"--group 'x\*' matches nothing in the case name 'patient001_frame01'"),
        ({"group": "patient"}, "the number of groups of preprocessed cases is 1, but nnU-Net's split needs at least 5"),
    ],
)
def test_invalid_arguments_are_rejected_and_nothing_is_written(dataset: Path, arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        add_label_budget("27", **arguments)
    assert not list(dataset.glob("*.*"))


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"train": [], "val": []}, "splits_final.json contains an object, not a list of folds"),
        ([{"train": CASES}], "splits_final.json, fold 0: 'val' must be a list of case names, but is missing"),
        ([{"train": CASES, "val": []}, CASES], "splits_final.json, fold 1: a list is not an object with 'train'"),
        ([{"train": [1, 2], "val": []}], r"fold 0: 'train' must be a list of case names, but is \[1, 2\]"),
        ([], "splits_final.json contains an empty list, not a list of folds"),
        (
            [{"train": CASES, "val": [], "unlabelled": []}],
            "splits_final.json: no fold has all its labels.*Add a fold without 'unlabelled'",
        ),
        (
            [{"train": CASES, "val": ["heart"]}],
            "fold 0: the case 'heart' is not preprocessed in .*nnUNetPlans_.*remove it from the fold.* run: nn",
        ),
    ],
)
def test_an_invalid_split_is_rejected(dataset: Path, splits: object, message: str) -> None:
    before = write(dataset, splits)
    with pytest.raises(InputError, match=message):
        add_label_budget("27", 1)
    assert (dataset / "splits_final.json").read_bytes() == before


def test_a_split_that_separates_cases_of_a_patient_is_rejected(dataset: Path) -> None:
    own = [{"train": CASES[4:], "val": CASES[:4]}, {"train": CASES[:-5], "val": CASES[-5:]}]
    before = write(dataset, own)
    with pytest.raises(
        InputError, match=r"fold 1: cases of the group 'patient010' are in both 'train' and 'val'.*Move splits_f"
    ):
        add_label_budget("27", 1, group=PATIENT)
    assert (dataset / "splits_final.json").read_bytes() == before
    assert add_label_budget("27", 1) == {0: 2, 1: 3}  # without the pattern the split is valid


def test_a_budget_whose_fold_has_changed_is_rejected(dataset: Path) -> None:
    add_label_budget("27", 4)
    splits = read(dataset)
    splits[1]["train"].remove(splits[6]["train"][0])
    before = write(dataset, splits)
    with pytest.raises(InputError, match=r"fold 6: fold 1 has changed since .*'labelled': 4.*Give another --seed"):
        add_label_budget("27", 4)
    assert (dataset / "splits_final.json").read_bytes() == before


def test_cases_that_are_not_preprocessed_are_rejected(dataset: Path) -> None:
    for file in (dataset / "nnUNetPlans_3d_fullres").glob(f"{CASES[3]}*"):
        file.unlink()
    with pytest.raises(InputError, match=f"nnUNetPlans_3d_fullres: the case '{CASES[3]}', which nnUNetPlans_2d has"):
        add_label_budget("27", 1)
    for file in dataset.glob("*/*"):
        file.unlink()
    with pytest.raises(
        InputError,
        match=f"{NAME}: no configuration has preprocessed cases. .* run: nnUNetv2_plan_and_preprocess -d 27",
    ):
        add_label_budget("27", 1)
    assert not (dataset / "splits_final.json").exists()


def test_a_case_that_nnunet_does_not_see_is_left_out_and_named(dataset: Path, capsys: pytest.CaptureFixture) -> None:
    for ending in (".b2nd", "_seg.b2nd", ".pkl"):  # to nnU-Net, the first of them is a segmentation
        (dataset / "nnUNetPlans_2d" / f"patient900_frame01_seg{ending}").touch()
    add_label_budget("27", 4)
    assert read(dataset)[:5] == plain_split(CASES)
    assert "Left out: patient900_frame01_seg of nnUNetPlans_2d" in capsys.readouterr().out


def test_a_case_that_lacks_a_file_is_rejected(dataset: Path) -> None:
    (dataset / "nnUNetPlans_2d" / f"{CASES[0]}.pkl").unlink()
    with pytest.raises(InputError, match=rf"{CASES[0]}\.pkl does not exist.*nnUNetv2_plan_and_preprocess -d 27"):
        add_label_budget("27", 4)
    assert not (dataset / "splits_final.json").exists()


def test_cases_of_the_unlabelled_folder_are_in_no_fold(dataset: Path) -> None:
    preprocess(dataset / "nnUNetPlans_2d_unlabelled", ["patient900_frame01"])
    add_label_budget("27", 4)
    assert read(dataset)[:5] == plain_split(CASES)
