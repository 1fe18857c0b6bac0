"""Checks what nnUNetv2_train is about to read: plans, configuration, preprocessed cases and fold."""

from __future__ import annotations

import re
from pathlib import Path

from nnunet_semcl.errors import InputError
from nnunet_semcl.files.advice import plan_again, preprocess_command
from nnunet_semcl.files.datasets import find_dataset, read_dataset_json
from nnunet_semcl.files.plans import RENAMED, read_plans, resolve_configuration
from nnunet_semcl.files.preprocessed import check_files, preprocessed_cases
from nnunet_semcl.files.splits import EXAMPLE, NNUNET_FOLDS, check_fold, read_splits


def check_training_input(dataset_name_or_id: str, configuration: str, plans_identifier: str, fold: str) -> None:
    """Checks the data set, its plans, the configuration, its preprocessed cases and the fold.

    A fold beyond those in splits_final.json is allowed, as in nnU-Net (a random 80:20 split): it only prints a warning.

    Raises:
        InputError: something that would make nnU-Net fail later with a traceback.
    """
    data = check_configuration(dataset_name_or_id, configuration, plans_identifier)
    check_cases(data, configuration, plans_identifier, fold)


def check_configuration(dataset_name_or_id: str, configuration: str, plans_identifier: str) -> Path:
    """Checks the data set, its plans and the configuration.

    Returns:
        The folder of the configuration's preprocessed cases, which may not exist.

    Raises:
        InputError: one of them is missing or invalid.
    """
    folder = find_dataset(dataset_name_or_id)
    source = folder / f"{plans_identifier}.json"
    plans = read_plans(source, any_version=True)
    names = ", ".join(plans["configurations"])
    if configuration not in plans["configurations"]:
        raise InputError(
            f"{source} has no configuration {configuration!r}, only {names or 'an empty list of them'}",
            "Use one of these." if names else plan_again(source),
        )
    read_dataset_json(folder)
    # A trainer without deep supervision needs no depth; ours check it themselves.
    return folder / resolve_configuration(plans, configuration, source, any_depth=True)["data_identifier"]


def check_cases(data: Path, configuration: str, plans_identifier: str, fold: int | str) -> None:
    """Checks that a configuration's preprocessed cases suffice for the fold.

    Args:
        data: folder of the preprocessed cases.

    Raises:
        InputError: there are no cases, a case lacks a file, a file belongs to no case, the fold is impossible, or there
            are too few cases for nnU-Net's own folds.
    """
    folder = data.parent
    if not folder.is_dir():
        raise InputError(f'{folder} does not exist, but is the "dataset_name" of the plans {plans_identifier}', RENAMED)
    cases = preprocessed_cases(data)
    if not cases:
        raise InputError(
            f"{data} contains no preprocessed cases of configuration {configuration}",
            f"Run: {preprocess_command(folder, plans_identifier, configuration)}",
        )
    if fold == "all":
        check_files(data, cases)
        return
    if not re.fullmatch(r"\d+", str(fold)):
        raise InputError(f"fold: {fold!r} is not 'all' or a whole number from 0 on", "Use one of these.")
    splits_file = folder / "splits_final.json"
    if splits_file.is_file():
        splits = read_splits(splits_file)
        n_folds = len(splits)
        if int(fold) < n_folds:
            split = splits[int(fold)]
            check_fold(f"{splits_file}, fold {fold}", split, data, cases)
            cases = {*split["train"], *split["val"]}
    elif len(cases) < NNUNET_FOLDS:
        raise InputError(
            f"{data} contains {len(cases)} preprocessed cases, too few for nnU-Net's split into {NNUNET_FOLDS} folds, "
            f"and {splits_file.name} does not exist",
            f"Train with fold all, or write your own {splits_file.name} into {folder}, such as {EXAMPLE}",
        )
    else:
        n_folds = NNUNET_FOLDS
    check_files(data, cases)
    if int(fold) >= n_folds:
        print(
            f"WARNING: fold {fold} is not among the {n_folds} folds of {splits_file.name} (0 to {n_folds - 1}): "
            f"nnU-Net will train on a random 80:20 split."
        )
