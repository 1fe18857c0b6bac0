"""nnU-Net's preprocessed data set: finding it (and its results), reading its plans, and what a training needs of it."""

import os
import re
from pathlib import Path

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_semcl.errors import InputError
from nnunet_semcl.json_files import read_json

NOT_PLANS = ("dataset.json", "dataset_fingerprint.json", "splits_final.json")
COMES_BY = {
    "nnUNet_preprocessed": "preprocess yours first: nnUNetv2_plan_and_preprocess -d ID",
    "nnUNet_results": "train on yours first: nnUNetv2_train ID CONFIGURATION FOLD -tr TRAINER",
}
NNUNET_FOLDS = 5  # nnU-Net's own cross-validation, made where there is no splits_final.json


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
    check_cases(data, configuration, plans_identifier, fold)


def check_cases(data: Path, configuration: str, plans_identifier: str, fold: int | str) -> None:
    """Whether a configuration's preprocessed cases, in the folder `data`, can give the fold.

    Raises InputError: no cases, an impossible fold, too few cases for nnU-Net's own folds.
    """
    folder = data.parent
    n_cases = len(list(data.glob("*.pkl")))
    if n_cases == 0:
        raise InputError(
            str(data),
            "no preprocessed cases",
            f"those of configuration {configuration}",
            f"Run: nnUNetv2_preprocess -d {int(folder.name[7:10])} -plans_name {plans_identifier} -c {configuration}",
        )
    if fold == "all":
        return
    if not re.fullmatch(r"\d+", str(fold)):
        raise InputError("fold", f"{fold!r}", "'all' or a whole number from 0 on", "Give one of these.")
    splits_file = folder / "splits_final.json"
    if splits_file.is_file():
        splits = read_json(splits_file)
        if not isinstance(splits, list):
            raise InputError(
                str(splits_file),
                f"a JSON {type(splits).__name__}",
                "a list with 'train' and 'val' of each fold",
                "Mend it, or delete it and nnU-Net makes its own.",
            )
        n_folds = len(splits)
    elif n_cases < NNUNET_FOLDS:
        raise InputError(
            str(data),
            f"{n_cases} preprocessed cases and no {splits_file.name}",
            f"at least {NNUNET_FOLDS} cases for nnU-Net's {NNUNET_FOLDS}-fold split",
            f"Train with fold all, or write a {splits_file.name} of your own into {folder}.",
        )
    else:
        n_folds = NNUNET_FOLDS
    if int(fold) >= n_folds:
        print(
            f"WARNING: fold {fold} is not among the {n_folds} folds of {splits_file.name} (0 to {n_folds - 1}): "
            f"nnU-Net will train on a random 80:20 split."
        )


def find_dataset(dataset_name_or_id: str, root: str = "nnUNet_preprocessed") -> Path:
    """The folder of a data set, by name (Dataset004_Hippocampus) or id (4, 004).

    Args:
        root: the variable that names the folder to look in, nnUNet_preprocessed or nnUNet_results.

    Raises InputError: the variable not set or not a folder; no such data set; an id that several have.
    """
    value = os.environ.get(root)
    if not value or not Path(value).is_dir():
        raise InputError(
            root,
            f"{value!r}, which is no folder" if value else "nothing",
            "the path of nnU-Net's folder of that name",
            f"Set it: export {root}=/path/to/{root}",
        )
    wanted = str(dataset_name_or_id)
    datasets = sorted(path for path in Path(value).iterdir() if re.match(r"Dataset\d{3}_", path.name) and path.is_dir())
    found = [
        path for path in datasets if path.name == wanted or (wanted.isdecimal() and int(path.name[7:10]) == int(wanted))
    ]
    if len(found) == 1:
        return found[0]
    there_are = ", ".join(path.name for path in found or datasets) or "none yet"
    raise InputError(
        value,
        f"{len(found) or 'no'} data sets for {wanted!r}",
        f"one of: {there_are}",
        "Give the name of one in full." if found else f"Name one of these, or {COMES_BY[root]}",
    )


def read_plans(file: Path, any_version: bool = False) -> dict:
    planning = f"nnUNetv2_plan_and_preprocess -d {int(file.parent.name[7:10])}"
    if not file.is_file():
        there_are = sorted(path.stem for path in file.parent.glob("*.json") if path.name not in NOT_PLANS)
        raise InputError(
            str(file),
            "no such plans",
            f"one of: {', '.join(there_are) or 'none yet'}",
            f"Name one of these with -p, or make them: {planning}",
        )
    plans = read_json(file)
    configurations = plans.get("configurations") if isinstance(plans, dict) else None
    if not isinstance(configurations, dict):
        raise InputError(str(file), "no configurations", "plans made by nnU-Net", f"Make them again: {planning}")
    for name, own in configurations.items():
        if not any_version and "architecture" not in own and "inherits_from" not in own:
            raise InputError(
                f"{file}, configuration {name}",
                "no 'architecture'",
                "plans of nnU-Net 2.8",
                f"These come from another version; make them again: {planning}",
            )
    return plans


def resolve_configuration(plans: dict, configuration: str, file: Path) -> dict:
    try:
        return PlansManager(plans).get_configuration(configuration).configuration
    except (RuntimeError, ValueError) as problem:
        raise InputError(
            f"{file}, configuration {configuration}",
            f"what nnU-Net cannot read ({problem})",
            "a configuration that is whole, or inherits from one",
            "Mend the plans.",
        ) from problem
