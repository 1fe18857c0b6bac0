"""Label budgets: which cases keep their labels, what nnU-Net makes of the folds, and every way to be refused."""

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
    """A preprocessed data set as far as its files' names go: splits are made of nothing else."""
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
    """What nnU-Net's trainer trains and validates on; it also makes a splits_final.json that is not there."""
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


def test_makes_nnunets_own_split_first(dataset: Path):
    add_label_budget("27", 4)
    made = read(dataset)
    os.remove(dataset / "splits_final.json")
    nnunets_split(dataset, 0)
    assert made[:5] == read(dataset)
    assert len(made) == 10


def test_appends_a_fold_with_few_labels_for_each_with_all(dataset: Path):
    assert add_label_budget("27", 4) == {0: 5, 1: 6, 2: 7, 3: 8, 4: 9}
    splits = read(dataset)
    for full, few in zip(splits[:5], splits[5:], strict=True):
        assert few["val"] == full["val"]
        assert len(few["train"]) == 4
        assert sorted(few["train"] + few["unlabelled"]) == sorted(full["train"])
        assert not {*few["train"]} & {*few["unlabelled"]}
    assert splits[7]["label_budget"] == {"fold": 2, "labelled": 4, "seed": 0, "group": None}


def test_nnunet_trains_on_the_labelled_cases_alone(dataset: Path):
    add_label_budget("27", 4)
    before = read(dataset)
    for number in (0, 5, 9):
        assert nnunets_split(dataset, number) == (before[number]["train"], before[number]["val"])
    assert read(dataset) == before


CASE_NAMES = st.lists(st.from_regex(r"[a-z0-9]{1,6}", fullmatch=True), min_size=1, max_size=40, unique=True)


@given(CASE_NAMES, st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_a_smaller_choice_is_part_of_a_larger_one(cases: list[str], one: int, other: int, seed: int):
    fold = {"train": cases, "val": ["v"]}
    less, more = (with_few_labels(0, fold, n, seed) for n in sorted((one, other)))
    assert {*less["train"]} <= {*more["train"]}
    assert len(more["train"]) == min(max(one, other), len(cases))
    assert sorted(less["train"] + less["unlabelled"]) == sorted(cases)
    # the order in the file does not matter
    assert with_few_labels(0, {"train": cases[::-1], "val": ["v"]}, min(one, other), seed) == less


def test_the_seed_decides():
    fold = {"train": CASES, "val": []}
    choices = {tuple(with_few_labels(0, fold, 4, seed)["train"]) for seed in range(20)}
    assert len(choices) > 15
    # every case has its turn
    often = np.mean([CASES[0] in with_few_labels(0, fold, 12, seed)["train"] for seed in range(200)])
    assert 0.35 < often < 0.65


# groups


def test_groups_stay_together_as_nnunet_would_split_them(dataset: Path):
    assert add_label_budget("27", group=PATIENT) == {}
    splits = read(dataset)
    for fold, of_patients in zip(splits, generate_crossval_split(PATIENTS, seed=12345), strict=True):
        assert {*fold} == {"train", "val"}
        for side in ("train", "val"):
            assert {patient(case) for case in fold[side]} == {*of_patients[side]}
            assert len(fold[side]) == 2 * len(of_patients[side])
    assert sorted(case for fold in splits for case in fold["val"]) == CASES


def test_labelled_counts_groups(dataset: Path):
    add_label_budget("27", 3, group=PATIENT)
    few = read(dataset)[5:]
    assert len(few) == 5
    for fold in few:
        assert len({patient(case) for case in fold["train"]}) == 3
        assert len(fold["train"]) == 6
        assert not {patient(case) for case in fold["train"]} & {patient(case) for case in fold["unlabelled"]}
        assert fold["label_budget"]["group"] == PATIENT


@given(CASE_NAMES.filter(lambda cases: len(cases) >= 5))
def test_every_case_is_validated_once(cases: list[str]):
    splits = plain_split(cases)
    assert sorted(case for fold in splits for case in fold["val"]) == sorted(cases)
    assert all(sorted(fold["train"] + fold["val"]) == sorted(cases) for fold in splits)


# the file


def test_the_same_call_again_appends_nothing(dataset: Path, capsys: pytest.CaptureFixture):
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


def test_what_is_there_stays_as_it_is_where_it_is(dataset: Path):
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


def test_a_write_that_fails_leaves_the_old_file_whole(dataset: Path, monkeypatch: pytest.MonkeyPatch):
    before = write(dataset, plain_split(CASES))

    def full(self: Path, text: str) -> int:
        self.write_bytes(text[:100].encode())
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(InputError, match="No space"):
        add_label_budget("27", 4)
    assert (dataset / "splits_final.json").read_bytes() == before


def test_command(dataset: Path, capsys: pytest.CaptureFixture):
    assert main(["label-budget", "-d", "27", "--labelled", "3", "--seed", "7", "--group", PATIENT]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(str(dataset / "splits_final.json"))
    assert lines[0].endswith(r"5 folds made, with the groups of 'patient\d+' kept together, 5 appended")
    # 12 patients of 2 cases: 3 of them in the validation of fold 0
    assert lines[1] == "fold 0 -> fold 5: 6 labelled, 12 unlabelled, 6 validation cases"
    assert lines[-1] == "Train with few labels: nnUNetv2_train 27 CONFIGURATION 5 -tr SemCLTrainer_fewLabels"
    assert len(lines) == 7
    assert read(dataset)[5]["label_budget"] == {"fold": 0, "labelled": 3, "seed": 7, "group": PATIENT}

    assert main(["label-budget", "-d", "27"]) == 1
    assert "nothing to do" in capsys.readouterr().err


# what a user can get wrong


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "found neither --labelled nor --group"),
        ({"labelled": 0}, "--labelled: found 0, expected 1 or more"),
        (
            {"labelled": 20},
            "--labelled: found 20, expected at most the 19 training cases of .*splits_final.json, fold 0",
        ),
        ({"labelled": 10, "group": PATIENT}, "--labelled: found 10, expected at most the 9 groups of training cases"),
        ({"labelled": 1, "seed": -1}, "--seed: found -1"),
        ({"group": "patient("}, r"--group: found 'patient\(' \(.*\), expected a regular expression"),
        ({"group": "patient00"}, "--group: found 'patient00', which finds nothing in the case 'patient010_frame01'"),
        ({"group": "x*"}, r"--group: found 'x\*', which finds nothing in the case 'patient001_frame01'"),
        ({"group": "patient"}, "found 1 groups, expected at least 5"),
    ],
)
def test_refuses_impossible_arguments_and_writes_nothing(dataset: Path, arguments: dict, message: str):
    with pytest.raises(InputError, match=message):
        add_label_budget("27", **arguments)
    assert not list(dataset.glob("*.*"))


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"train": [], "val": []}, "splits_final.json: found a JSON dict, expected a list"),
        ([{"train": CASES}], "splits_final.json, fold 0: found no list of case names as 'val'"),
        ([{"train": CASES, "val": []}, CASES], "splits_final.json, fold 1: found a JSON list, expected an object"),
        ([{"train": [1, 2], "val": []}], "fold 0: found no list of case names as 'train'"),
        ([], "splits_final.json: found an empty list"),
        ([{"train": CASES, "val": [], "unlabelled": []}], "found no fold with all its labels"),
        (
            [{"train": CASES, "val": ["heart"]}],
            "fold 0: found the case 'heart', which is not in .*nnUNetPlans_.*Run: nn",
        ),
    ],
)
def test_refuses_a_file_that_is_no_split(dataset: Path, splits: object, message: str):
    before = write(dataset, splits)
    with pytest.raises(InputError, match=message):
        add_label_budget("27", 1)
    assert (dataset / "splits_final.json").read_bytes() == before


def test_refuses_a_split_that_tears_a_patient_apart(dataset: Path):
    own = [{"train": CASES[4:], "val": CASES[:4]}, {"train": CASES[:-5], "val": CASES[-5:]}]
    before = write(dataset, own)
    with pytest.raises(
        InputError, match=r"fold 1: found the group 'patient010' in 'train' and in 'val'.*Move splits_f"
    ):
        add_label_budget("27", 1, group=PATIENT)
    assert (dataset / "splits_final.json").read_bytes() == before
    assert add_label_budget("27", 1) == {0: 2, 1: 3}  # without the pattern it is any split


def test_refuses_a_budget_whose_fold_was_changed_since(dataset: Path):
    add_label_budget("27", 4)
    splits = read(dataset)
    splits[1]["train"].remove(splits[6]["train"][0])
    before = write(dataset, splits)
    with pytest.raises(InputError, match=r"fold 6: found .* with other cases than fold 1 now gives"):
        add_label_budget("27", 4)
    assert (dataset / "splits_final.json").read_bytes() == before


def test_refuses_cases_that_are_not_preprocessed(dataset: Path):
    os.remove(dataset / "nnUNetPlans_3d_fullres" / f"{CASES[3]}.pkl")  # as an interrupted run leaves it
    with pytest.raises(InputError, match=f"found the case '{CASES[3]}', which is not in .*nnUNetPlans_3d_fullres"):
        add_label_budget("27", 1)
    for file in dataset.glob("*/*"):
        file.unlink()
    with pytest.raises(InputError, match=f"{NAME}: found no preprocessed cases, .* Run: nnUNetv2_preprocess -d 27"):
        add_label_budget("27", 1)
    assert not (dataset / "splits_final.json").exists()


def test_unlabelled_cases_of_a_folder_of_their_own_are_in_no_fold(dataset: Path):
    preprocess(dataset / "nnUNetPlans_2d_unlabelled", ["patient900_frame01"])
    add_label_budget("27", 4)
    assert read(dataset)[:5] == plain_split(CASES)
