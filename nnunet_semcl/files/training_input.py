"""What nnUNetv2_train is about to read: plans, configuration, preprocessed cases and fold, checked before it starts."""

from __future__ import annotations

import re
from pathlib import Path

from nnunet_semcl.errors import InputError
from nnunet_semcl.files.datasets import find_dataset, read_dataset_json
from nnunet_semcl.files.plans import read_plans, resolve_configuration
from nnunet_semcl.files.splits import NNUNET_FOLDS, check_fold, read_splits


def check_training_input(dataset_name_or_id: str, configuration: str, plans_identifier: str, fold: str) -> None:
    """What nnUNetv2_train is about to read: data set, plans, configuration, preprocessed cases and fold.

    Raises InputError for what nnU-Net would stumble over later with a traceback. A fold beyond splits_final.json is
    allowed, as in nnU-Net (a random 80:20 split), and earns one line of warning.
    """
    folder = find_dataset(dataset_name_or_id)
    source = folder / f"{plans_identifier}.json"
    plans = read_plans(source, any_version=True)
    if configuration not in plans["configurations"]:
        raise InputError(
            str(source),
            f"no configuration {configuration!r}",
            f"one of: {', '.join(plans['configurations'])}",
            "Name one of these.",
        )
    data = folder / resolve_configuration(plans, configuration, source)["data_identifier"]
    read_dataset_json(folder)
    check_cases(data, configuration, plans_identifier, fold)


def check_cases(data: Path, configuration: str, plans_identifier: str, fold: int | str) -> None:
    """Whether a configuration's preprocessed cases, in the folder `data`, can give the fold.

    Raises InputError: no cases, files that are none of a case's or are missing, an impossible fold, too few cases for
    nnU-Net's own folds.
    """
    folder = data.parent
    cases = _preprocessed_cases(data)
    if not cases:
        raise InputError(
            str(data),
            "no preprocessed cases",
            f"those of configuration {configuration}",
            f"Run: nnUNetv2_preprocess -d {int(folder.name[7:10])} -plans_name {plans_identifier} -c {configuration}",
        )
    if fold == "all":
        _check_files(data, cases)
        return
    if not re.fullmatch(r"\d+", str(fold)):
        raise InputError("fold", f"{fold!r}", "'all' or a whole number from 0 on", "Give one of these.")
    splits_file = folder / "splits_final.json"
    if splits_file.is_file():
        splits = read_splits(splits_file)
        n_folds = len(splits)
        if int(fold) < n_folds:
            of_fold = splits[int(fold)]
            check_fold(f"{splits_file}, fold {fold}", of_fold, data, cases)
            cases = {*of_fold["train"], *of_fold["val"]}
    elif len(cases) < NNUNET_FOLDS:
        raise InputError(
            str(data),
            f"{len(cases)} preprocessed cases and no {splits_file.name}",
            f"at least {NNUNET_FOLDS} cases for nnU-Net's {NNUNET_FOLDS}-fold split",
            f"Train with fold all, or write a {splits_file.name} of your own into {folder}.",
        )
    else:
        n_folds = NNUNET_FOLDS
    _check_files(data, cases)
    if int(fold) >= n_folds:
        print(
            f"WARNING: fold {fold} is not among the {n_folds} folds of {splits_file.name} (0 to {n_folds - 1}): "
            f"nnU-Net will train on a random 80:20 split."
        )


def _preprocessed_cases(data: Path) -> set[str]:
    """Those that nnU-Net sees in the folder: the ones with an image."""
    files = {file for file in data.glob("*") if file.is_file()}
    formats = {file.suffix for file in files} - {".pkl", ".npy"}
    strange = {file for file in files if file.suffix not in (".pkl", ".npy", ".b2nd", ".npz")}
    if strange or len(formats) > 1:
        raise InputError(
            str(min(strange or files)),
            "a file that nnU-Net does not know there" if strange else "cases as .b2nd and as .npz",
            "preprocessed cases alone, in one format",
            "Move it away." if strange else "Preprocess the data set again.",
        )
    return {file.stem for file in files if file.suffix in formats and not file.name.endswith("_seg.b2nd")}


def _check_files(data: Path, cases: set[str]) -> None:
    """That each case has its other files; those of a case with hidden labels are not looked for."""
    for case in sorted(cases):
        for ending in ("_seg.b2nd", ".pkl") if (data / f"{case}.b2nd").is_file() else (".pkl",):
            if not (data / f"{case}{ending}").is_file():
                raise InputError(
                    str(data / f"{case}{ending}"),
                    "no such file",
                    "one beside the image",
                    f"Preprocess the case again: nnUNetv2_preprocess -d {int(data.parent.name[7:10])}",
                )
