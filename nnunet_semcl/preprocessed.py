"""nnU-Net's preprocessed data set: finding it (and its results), reading its plans, and what a training needs of it."""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_semcl.config import COUNT, Rule, number, whole_numbers
from nnunet_semcl.errors import InputError
from nnunet_semcl.json_files import read_json
from nnunet_semcl.splits import check_fold, read_splits

NOT_PLANS = ("dataset.json", "dataset_fingerprint.json", "splits_final.json")
COMES_BY = {
    "nnUNet_preprocessed": "preprocess yours first: nnUNetv2_plan_and_preprocess -d ID",
    "nnUNet_results": "train on yours first: nnUNetv2_train ID CONFIGURATION FOLD -tr TRAINER",
}
MEND_DATASET_JSON = "Mend it in nnUNet_raw and run again: nnUNetv2_plan_and_preprocess"
NNUNET_FOLDS = 5  # nnU-Net's own cross-validation, made where there is no splits_final.json
TEXT = Rule("a text", lambda value: isinstance(value, str) and value != "")
FOLDER_NAME = Rule("the name of a folder", lambda v: TEXT.holds(v) and Path(v).name == v)
NAMED = Rule("an object that names at least one", lambda value: isinstance(value, dict) and value != {})


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
        if not isinstance(own, dict):
            found, fix = f"a JSON {type(own).__name__}", f"Make them again: {planning}"
            raise InputError(f"{file}, configuration {name}", found, "an object of settings", fix)
        if not any_version and "architecture" not in own and "inherits_from" not in own:
            raise InputError(
                f"{file}, configuration {name}",
                "no 'architecture'",
                "plans of nnU-Net 2.8",
                f"These come from another version; make them again: {planning}",
            )
    return plans


def resolve_configuration(plans: dict, configuration: str, file: Path | str) -> dict:
    """A configuration with what it inherits.

    Raises InputError: nnU-Net cannot resolve it, or see `check_configuration`.
    """
    where = f"{file}, configuration {configuration}"
    try:
        resolved = PlansManager(plans).get_configuration(configuration).configuration
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise InputError(
            where,
            f"what nnU-Net cannot read ({problem})",
            "a configuration that is whole, or inherits from one",
            "Mend the plans.",
        ) from problem
    check_configuration(resolved, where)
    return resolved


def check_configuration(configuration: dict, where: str) -> None:
    """Whether a configuration of the plans, its inheritance resolved, can be trained.

    Raises InputError, naming the key: one is missing, or of a kind or size that no plan has.
    """
    fix = "Mend the plans, or make them again: nnUNetv2_plan_experiment"
    _check_keys(
        configuration,
        where,
        {
            "data_identifier": FOLDER_NAME,
            "batch_size": COUNT,
            "patch_size": whole_numbers((2, 3)),
            "spacing": Rule("as many numbers above 0 as patch_size has", lambda v: _is_spacing(v, configuration)),
        },
        fix,
    )
    if "architecture" not in configuration:
        return  # of another version, which nnU-Net translates
    network = configuration["architecture"]
    kwargs = network.get("arch_kwargs") if isinstance(network, dict) else None
    if not isinstance(kwargs, dict):
        raise InputError(f"{where}, architecture", f"{network!r:.200}", "an object with arch_kwargs", fix)
    axes = len(configuration["patch_size"])
    of_stage = whole_numbers((axes,)).holds
    strides = Rule(
        f"{axes} whole numbers for each stage", lambda v: isinstance(v, list) and v != [] and all(map(of_stage, v))
    )
    _check_keys(kwargs, where, {"strides": strides}, fix)
    for size, total in zip(configuration["patch_size"], np.prod(kwargs["strides"], axis=0), strict=True):
        if size % total:
            found, expected = f"{size} voxels", f"a multiple of the {total} that the strides make"
            raise InputError(f"{where}, patch_size", found, expected, fix)
    features = whole_numbers((len(kwargs["strides"]),))
    _check_keys(kwargs, where, {"features_per_stage": features}, fix)


def read_dataset_json(folder: Path) -> dict:
    """A preprocessed data set's dataset.json.

    Raises InputError: there is none, or see `check_dataset_json`.
    """
    file = folder / "dataset.json"  # nnU-Net's planning copies it here
    if not file.is_file():
        raise InputError(str(file), "no such file", "the data set's", MEND_DATASET_JSON)
    content = read_json(file)
    check_dataset_json(content, str(file))
    return content


def check_dataset_json(content: Any, file: str) -> None:
    """Raises InputError: a key is missing or of the wrong kind, or labels that nnU-Net cannot train."""
    fix = MEND_DATASET_JSON
    if not isinstance(content, dict):
        raise InputError(str(file), f"a JSON {type(content).__name__}", "an object", fix)
    channels = "modality" if "modality" in content else "channel_names"
    _check_keys(content, str(file), {"labels": NAMED, "file_ending": TEXT, channels: NAMED}, fix)
    try:
        labels = LabelManager(content["labels"], content.get("regions_class_order")).all_labels
    except (RuntimeError, ValueError, TypeError, AssertionError) as problem:
        found = f"{content['labels']} ({problem})"
        raise InputError(f"{file}, labels", found, "labels as nnU-Net has them", fix) from problem
    if labels != list(range(len(labels))):
        found = f"the values {', '.join(map(str, labels))}"
        raise InputError(f"{file}, labels", found, "0, 1, 2 and so on without a gap", fix)


def _is_spacing(value: Any, configuration: dict) -> bool:
    above_0 = number(1e-6, 1e6).holds
    return isinstance(value, list) and len(value) == len(configuration["patch_size"]) and all(map(above_0, value))


def _check_keys(content: dict, where: str, rules: dict[str, Rule], fix: str) -> None:
    for key, rule in rules.items():
        if key not in content:
            raise InputError(where, f"no {key!r}", rule.expected, fix)
        if not rule.holds(content[key]):
            raise InputError(f"{where}, {key}", f"{content[key]!r:.200}", rule.expected, fix)
