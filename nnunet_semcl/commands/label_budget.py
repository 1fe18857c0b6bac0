"""Label budgets: folds in which only some of the training cases keep their labels.

They are appended to nnU-Net's splits_final.json. nnU-Net itself reads only "train" and "val" of an entry, so a stock
trainer sees an ordinary small fold. A trainer with pretraining may also use the images of "unlabelled".
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
from nnunetv2.utilities.crossval_split import generate_crossval_split

from nnunet_semcl.errors import InputError
from nnunet_semcl.files.advice import UNLABELLED, preprocess_again, preprocess_all
from nnunet_semcl.files.datasets import find_dataset
from nnunet_semcl.files.groups import check_group, group_of
from nnunet_semcl.files.json_files import write_json
from nnunet_semcl.files.preprocessed import check_files, preprocessed_cases
from nnunet_semcl.files.splits import EXAMPLE, NNUNET_FOLDS, Fold, check_fold, read_splits

NNUNET_SEED = 12345  # seed of nnU-Net's own split, in nnUNetTrainer.do_split


def add_label_budget(
    dataset_name_or_id: str, labelled: int | None = None, seed: int = 0, group: str | None = None
) -> dict[int, int]:
    """For each fold with all labels, appends a fold with few labels to splits_final.json, and prints them.

    If there is no splits_final.json, nnU-Net's own split is created first. Existing folds are neither changed nor
    moved. A second call with the same arguments appends nothing.

    Args:
        dataset_name_or_id: a data set in nnUNet_preprocessed.
        labelled: number of training cases, or of groups, that keep their labels. None only creates or checks the
            split.
        seed: seed of the random choice. With the same seed, a smaller choice is part of every larger one.
        group: a regular expression. Cases in whose names it matches the same text (a patient) are kept together.

    Returns:
        Number of each fold with all labels -> number of its fold with few labels.

    Raises:
        InputError: there is nothing to do, or a number is invalid. The pattern is invalid, or does not match a case
            name. Too few cases are preprocessed, or not the same in all configurations. The splits_final.json is
            invalid, names a case that is not preprocessed, splits a group, or has this label budget for a fold that has
            changed since.
    """
    _check_arguments(labelled, seed, group)
    folder = find_dataset(dataset_name_or_id)
    cases = _preprocessed_cases(folder)
    file = folder / "splits_final.json"
    found = file.is_file()
    if not found:
        _check_same_cases(cases)
    splits = read_splits(file) if found else plain_split(sorted(set.union(*cases.values())), group)
    full = {number: fold for number, fold in enumerate(splits) if "unlabelled" not in fold}
    if not full:
        raise InputError(
            f"{file}: no fold has all its labels, every fold has 'unlabelled' cases",
            "Add a fold without 'unlabelled', or move the file away to use nnU-Net's own split.",
        )
    for number, fold in full.items():
        where = f"{file}, fold {number}"
        for data, preprocessed in cases.items():
            check_fold(where, fold, data, preprocessed)
        _check_groups(where, fold, labelled, group)

    numbers: dict[int, int] = {}
    n_before = len(splits)
    if labelled is not None:
        for number, fold in full.items():
            numbers[number] = _find_or_append(splits, with_few_labels(number, fold, labelled, seed, group), file)
    if not found or len(splits) > n_before:
        write_json(splits, file)

    grouped = f" with the groups of '{group}' kept together" if group else ""
    print(f"{file}: {n_before} folds {'found' if found else 'created'}{grouped}, {len(splits) - n_before} appended")
    for number, new in numbers.items():
        sizes = {key: len(splits[new][key]) for key in ("train", "unlabelled", "val")}
        print(
            f"fold {number} -> fold {new}: {sizes['train']} labelled, {sizes['unlabelled']} unlabelled, "
            f"{sizes['val']} validation cases"
        )
    if numbers:
        print(
            f"Train with few labels: nnUNetv2_train {dataset_name_or_id} CONFIGURATION {min(numbers.values())} "
            "-tr SemCLTrainer"
        )
    return numbers


def plain_split(cases: list[str], group: str | None = None) -> list[Fold]:
    """Splits the cases into five folds as nnU-Net does. With a pattern, it splits their groups instead.

    Raises:
        InputError: there are fewer cases, or groups, than folds.
    """
    members: dict[str, list[str]] = defaultdict(list)
    for case in sorted(cases):
        members[group_of(case, group)].append(case)
    if len(members) < NNUNET_FOLDS:
        raise InputError(
            f"the number of {'groups of ' if group else ''}preprocessed cases is {len(members)}, but nnU-Net's split "
            f"needs at least {NNUNET_FOLDS}, one per fold",
            f"Write your own splits_final.json to the folder of the preprocessed data set, such as {EXAMPLE}",
        )
    return [
        {side: sorted(case for name in names for case in members[name]) for side, names in fold.items()}
        for fold in generate_crossval_split(sorted(members), seed=NNUNET_SEED, n_splits=NNUNET_FOLDS)
    ]


def with_few_labels(number: int, fold: Fold, labelled: int, seed: int, group: str | None = None) -> Fold:
    """The fold with this number, with only `labelled` of its training cases, or groups, in "train"."""
    cases = sorted(set(fold["train"]))
    groups = sorted({group_of(case, group) for case in cases})
    # always the first of the same permutation, so a smaller choice is part of a larger one
    chosen = {groups[i] for i in np.random.default_rng(seed).permutation(len(groups))[:labelled]}
    return {
        "train": [case for case in cases if group_of(case, group) in chosen],
        "val": fold["val"],
        "unlabelled": [case for case in cases if group_of(case, group) not in chosen],
        "label_budget": {"fold": number, "labelled": labelled, "seed": seed, "group": group},
    }


def _check_arguments(labelled: int | None, seed: int, group: str | None) -> None:
    if labelled is None and group is None:
        raise InputError(
            "label-budget: without --labelled and --group there is nothing to do",
            "Give at least one of them. nnU-Net's trainer creates the standard split by itself.",
        )
    if labelled is not None and labelled < 1:
        raise InputError(f"--labelled {labelled}: at least one case has to keep its labels", "Give 1 or more.")
    if seed < 0:
        raise InputError(f"--seed {seed}: a seed cannot be negative", "Give 0 or more.")
    check_group(group)


def _preprocessed_cases(folder: Path) -> dict[Path, set[str]]:
    """Folder of preprocessed labelled cases -> names of the cases."""
    cases: dict[Path, set[str]] = {}
    for data in sorted({file.parent for file in folder.glob("*/*.pkl")}):
        if data.name.endswith(UNLABELLED):
            continue
        cases[data] = preprocessed_cases(data)
        check_files(data, cases[data])
        for case in sorted({file.stem for file in data.glob("*.pkl")} - cases[data]):
            print(f"Left out: {case} of {data.name}, which nnU-Net does not take for a case")
    if not any(cases.values()):
        raise InputError(
            f"{folder}: no configuration has preprocessed cases",
            f"To preprocess them, {preprocess_all(folder)}",
        )
    return cases


def _check_same_cases(cases: dict[Path, set[str]]) -> None:
    """Checks that no configuration was preprocessed before cases were added, or after they were removed."""
    for more, names in cases.items():
        for fewer, others in cases.items():
            if names - others:
                raise InputError(
                    f"{fewer}: the case {min(names - others)!r}, which {more.name} has, is not preprocessed",
                    f"To preprocess both for the same cases, {preprocess_again(fewer, more)}",
                )


def _check_groups(where: str, fold: Fold, labelled: int | None, group: str | None) -> None:
    training, validation = ({group_of(case, group) for case in fold[side]} for side in ("train", "val"))
    if group and training & validation:
        raise InputError(
            f"{where}: cases of the group {min(training & validation)!r} are in both 'train' and 'val'",
            "Move splits_final.json away, run this command again, and train again.",
        )
    if labelled is not None and labelled > len(training):
        unit = "groups of training cases" if group else "training cases"
        raise InputError(
            f"--labelled {labelled}: {where} has only {len(training)} {unit}", f"Give {len(training)} or fewer."
        )


def _find_or_append(splits: list[Fold], new: Fold, file: Path) -> int:
    """The number of the new fold. Appends the fold unless the splits have it already."""
    for number, fold in enumerate(splits):
        if fold.get("label_budget") == new["label_budget"]:
            if fold == new:
                return number
            raise InputError(
                f"{file}, fold {number}: fold {new['label_budget']['fold']} has changed since this fold was made from "
                f"it with {new['label_budget']}",
                "Give another --seed, or move splits_final.json away and train again.",
            )
    splits.append(new)
    return len(splits) - 1
