"""Label budgets: folds in which only some of the training cases keep their labels.

They are appended to nnU-Net's splits_final.json. Of each entry nnU-Net itself reads "train" and "val" alone, so such a
fold is an ordinary small one to every stock trainer; a trainer that pretrains may also use the images of "unlabelled".
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import numpy as np
from nnunetv2.utilities.crossval_split import generate_crossval_split

from nnunet_semcl.data.unlabelled import SUFFIX
from nnunet_semcl.errors import InputError
from nnunet_semcl.files.datasets import find_dataset
from nnunet_semcl.files.json_files import write_json
from nnunet_semcl.files.splits import NNUNET_FOLDS, Fold, check_fold, read_splits

NNUNET_SEED = 12345  # of nnU-Net's own split, in nnUNetTrainer.do_split


def add_label_budget(
    dataset_name_or_id: str, labelled: int | None = None, seed: int = 0, group: str | None = None
) -> dict[int, int]:
    """Appends to splits_final.json, for each fold with all its labels, one with few; prints them.

    Without a splits_final.json one is made first. What is in the file already stays as it is, where it is; the same
    call again finds its folds there and appends nothing.

    Args:
        dataset_name_or_id: a data set in nnUNet_preprocessed.
        labelled: how many training cases, or groups of them, keep their labels; None only makes or checks the split.
        seed: of the choice. With one seed, a smaller choice is part of every larger one.
        group: a regular expression; cases in whose names it finds the same text (a patient) are kept together.

    Returns:
        The number of each fold with all its labels -> the number of the fold with few.

    Raises:
        InputError: nothing to do or an impossible number; a pattern that is none, or is not found in a case's name;
            no preprocessed cases or too few; a splits_final.json that is none, names a case that is not preprocessed,
            tears a group apart, or holds this budget for another fold than the present one.
    """
    _check_arguments(labelled, seed, group)
    folder = find_dataset(dataset_name_or_id)
    cases = _preprocessed_cases(folder)
    file = folder / "splits_final.json"
    found = file.is_file()
    splits = read_splits(file) if found else plain_split(sorted(set.union(*cases.values())), group)
    full = {number: fold for number, fold in enumerate(splits) if "unlabelled" not in fold}
    if not full:
        fix = "Mend it, or move it away and nnU-Net's own split is made."
        raise InputError(str(file), "no fold with all its labels", "at least one to start from", fix)
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

    by = f", with the groups of '{group}' kept together" if group else ""
    print(f"{file}: {n_before} folds {'found' if found else 'made'}{by}, {len(splits) - n_before} appended")
    for number, new in numbers.items():
        sizes = {key: len(splits[new][key]) for key in ("train", "unlabelled", "val")}
        print(
            f"fold {number} -> fold {new}: {sizes['train']} labelled, {sizes['unlabelled']} unlabelled, "
            f"{sizes['val']} validation cases"
        )
    if numbers:
        print(
            f"Train with few labels: nnUNetv2_train {dataset_name_or_id} CONFIGURATION {min(numbers.values())} "
            "-tr SemCLTrainer_fewLabels"
        )
    return numbers


def plain_split(cases: list[str], group: str | None = None) -> list[Fold]:
    """nnU-Net's own five folds of the cases; with a pattern, those of their groups.

    Raises InputError: fewer cases, or groups, than folds.
    """
    members: dict[str, list[str]] = defaultdict(list)
    for case in sorted(cases):
        members[group_of(case, group)].append(case)
    if len(members) < NNUNET_FOLDS:
        raise InputError(
            "the preprocessed cases",
            f"{len(members)} {'groups' if group else 'cases'}",
            f"at least {NNUNET_FOLDS}, one for each fold",
            "Write a splits_final.json of your own into the preprocessed data set's folder.",
        )
    return [
        {side: sorted(case for name in names for case in members[name]) for side, names in fold.items()}
        for fold in generate_crossval_split(sorted(members), seed=NNUNET_SEED, n_splits=NNUNET_FOLDS)
    ]


def with_few_labels(number: int, fold: Fold, labelled: int, seed: int, group: str | None = None) -> Fold:
    """The fold of this number with only `labelled` training cases, or groups, left in "train"."""
    cases = sorted(set(fold["train"]))
    groups = sorted({group_of(case, group) for case in cases})
    # the first of one permutation: a smaller choice is part of a larger one
    chosen = {groups[i] for i in np.random.default_rng(seed).permutation(len(groups))[:labelled]}
    return {
        "train": [case for case in cases if group_of(case, group) in chosen],
        "val": fold["val"],
        "unlabelled": [case for case in cases if group_of(case, group) not in chosen],
        "label_budget": {"fold": number, "labelled": labelled, "seed": seed, "group": group},
    }


def group_of(case: str, group: str | None) -> str:
    """What the pattern finds in the case's name; without a pattern every case is a group of its own."""
    if group is None:
        return case
    match = re.search(group, case)
    if not match or not match.group():
        raise InputError(
            "--group",
            f"'{group}', which finds nothing in the case {case!r}",
            "a pattern that finds the group in every case's name",
            r"Mend it, e.g. --group 'patient\d+'",
        )
    return match.group()


def _check_arguments(labelled: int | None, seed: int, group: str | None) -> None:
    if labelled is None and group is None:
        raise InputError(
            "label-budget",
            "neither --labelled nor --group",
            "at least one of them",
            "There is nothing to do: nnU-Net makes its own split by itself.",
        )
    if labelled is not None and labelled < 1:
        raise InputError("--labelled", f"{labelled}", "1 or more", "Leave at least one case its labels.")
    if seed < 0:
        raise InputError("--seed", f"{seed}", "0 or more", "Give such a number.")
    try:
        re.compile(group or "")
    except re.error as problem:
        raise InputError(
            "--group", f"'{group}' ({problem})", "a regular expression", r"Mend it, e.g. --group 'patient\d+'"
        ) from problem


def _preprocessed_cases(folder: Path) -> dict[Path, set[str]]:
    """Folder of preprocessed labelled cases -> their names. nnU-Net writes a case's .pkl last."""
    cases: dict[Path, set[str]] = defaultdict(set)
    for file in folder.glob("*/*.pkl"):
        if not file.parent.name.endswith(SUFFIX):
            cases[file.parent].add(file.stem)
    if not cases:
        raise InputError(
            str(folder),
            "no preprocessed cases",
            "those of one configuration or more",
            f"Run: nnUNetv2_preprocess -d {int(folder.name[7:10])}",
        )
    return cases


def _check_groups(where: str, fold: Fold, labelled: int | None, group: str | None) -> None:
    training, validation = ({group_of(case, group) for case in fold[side]} for side in ("train", "val"))
    if group and training & validation:
        raise InputError(
            where,
            f"the group {min(training & validation)!r} in 'train' and in 'val'",
            "each group on one side",
            "Move splits_final.json away, call this again, and train again.",
        )
    if labelled is not None and labelled > len(training):
        what = "groups of training cases" if group else "training cases"
        raise InputError(
            "--labelled", f"{labelled}", f"at most the {len(training)} {what} of {where}", "Ask for fewer."
        )


def _find_or_append(splits: list[Fold], new: Fold, file: Path) -> int:
    """The number of the new fold, whether it is in the splits already or has to be appended."""
    for number, fold in enumerate(splits):
        if fold.get("label_budget") == new["label_budget"]:
            if fold == new:
                return number
            raise InputError(
                f"{file}, fold {number}",
                f"{new['label_budget']} with other cases than fold {new['label_budget']['fold']} now gives",
                "the fold it was made from, unchanged",
                "Give another --seed, or move splits_final.json away and train again.",
            )
    splits.append(new)
    return len(splits) - 1
