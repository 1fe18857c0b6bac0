"""A data set's folder in nnUNet_preprocessed or nnUNet_results, and its dataset.json."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_semcl.errors import InputError
from nnunet_semcl.files.json_files import check_keys, read_json
from nnunet_semcl.rules import NAMED, TEXT, json_type

HOW_TO_ADD_ONE = {
    "nnUNet_preprocessed": "preprocess your data set first: nnUNetv2_plan_and_preprocess -d {}",
    "nnUNet_results": "train on your data set first: nnUNetv2_train {} CONFIGURATION FOLD -tr TRAINER",
}

NAME = re.compile(r"Dataset(\d{3,})_")


def id_of(folder: Path) -> int:
    """Returns a data set's number; a folder of another name has 0, which nnU-Net gives to none."""
    match = NAME.match(folder.name)
    return int(match[1]) if match else 0


def find_dataset(dataset_name_or_id: str, root: str = "nnUNet_preprocessed") -> Path:
    """The folder of a data set, by name (Dataset004_Hippocampus) or id (4, 004, 1004).

    Args:
        root: the environment variable that names the folder to search, nnUNet_preprocessed or nnUNet_results.

    Raises:
        InputError: the variable is not set or names no folder, or none or several of the data sets match.
    """
    value = os.environ.get(root)
    if not value or not Path(value).is_dir():
        raise InputError(
            f"{root}: {value!r} is not a folder" if value else f"{root} is not set",
            f"Set it to nnU-Net's folder of that name: export {root}=/path/to/{root}",
        )
    wanted = str(dataset_name_or_id)
    datasets = sorted(path for path in Path(value).iterdir() if NAME.match(path.name) and path.is_dir())
    found = [path for path in datasets if path.name == wanted or (wanted.isdecimal() and id_of(path) == int(wanted))]
    if len(found) == 1:
        return found[0]
    names = ", ".join(path.name for path in found or datasets) or "none"
    if found:
        raise InputError(f"{value}: {len(found)} data sets match {wanted!r}: {names}", "Give the full name of one.")
    number = int(wanted) if wanted.isdecimal() else id_of(Path(wanted))
    raise InputError(
        f"{value}: no data set matches {wanted!r}, available: {names}",
        f"Correct it, or {HOW_TO_ADD_ONE[root].format(number or 'ID')}",
    )


def read_dataset_json(folder: Path) -> dict:
    """Reads the dataset.json of a preprocessed data set.

    Raises:
        InputError: the file does not exist, or see `check_dataset_json`.
    """
    file = folder / "dataset.json"  # nnU-Net's planning copies it here
    if not file.is_file():
        raise InputError(f"{file} does not exist", f"Copy it there from nnUNet_raw/{folder.name}.")
    return check_dataset_json(read_json(file, _fix_dataset_json(file)), str(file))


def check_dataset_json(content: object, file: str) -> dict:
    """Checks what training reads in a dataset.json.

    Returns:
        The content.

    Raises:
        InputError: a key is missing or of the wrong type, or nnU-Net cannot train with the labels.
    """
    fix = _fix_dataset_json(Path(file))
    if not isinstance(content, dict):
        raise InputError(f"{file} contains {json_type(content)}, not an object", fix)
    channels = "modality" if "modality" in content else "channel_names"
    check_keys(content, str(file), {"labels": NAMED, "file_ending": TEXT, channels: NAMED}, fix)
    try:
        labels = LabelManager(content["labels"], content.get("regions_class_order")).all_labels
    except (RuntimeError, ValueError, TypeError, AssertionError) as problem:
        raise InputError(f"{file}, labels: nnU-Net cannot use {content['labels']} ({problem})", fix) from problem
    if labels != list(range(len(labels))):
        found = ", ".join(map(str, labels))
        raise InputError(f"{file}, labels: the values {found} are not 0, 1, 2 and so on without a gap", fix)
    return content


def _fix_dataset_json(file: Path) -> str:
    # labels and channels are in the fingerprint too, which nnU-Net keeps without --clean
    return (
        "Fix dataset.json in nnUNet_raw, then run: "
        f"nnUNetv2_plan_and_preprocess -d {id_of(file.parent) or 'ID'} --clean"
    )


def channel_names(dataset_json: dict) -> dict[str, str]:
    """Number -> name of each channel; older data sets call them modalities."""
    return dataset_json["modality"] if "modality" in dataset_json else dataset_json["channel_names"]


def label_values(labels: LabelManager) -> dict[str, int]:
    """Name -> value of each foreground label; with regions, which share values, the values are the names."""
    if labels.has_regions:
        return {f"label {value}": int(value) for value in labels.all_labels if value > 0}
    values = {name: int(np.ravel(value)[0]) for name, value in labels.label_dict.items()}  # [1] is 1 to nnU-Net
    return {name: value for name, value in values.items() if value in labels.foreground_labels}
