"""A data set's folder in nnUNet_preprocessed or nnUNet_results, and its dataset.json."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_semcl.errors import InputError
from nnunet_semcl.files.json_files import check_keys, read_json
from nnunet_semcl.rules import NAMED, TEXT

COMES_BY = {
    "nnUNet_preprocessed": "preprocess yours first: nnUNetv2_plan_and_preprocess -d ID",
    "nnUNet_results": "train on yours first: nnUNetv2_train ID CONFIGURATION FOLD -tr TRAINER",
}
MEND_DATASET_JSON = "Mend it in nnUNet_raw and run again: nnUNetv2_plan_and_preprocess"


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
    check_keys(content, str(file), {"labels": NAMED, "file_ending": TEXT, channels: NAMED}, fix)
    try:
        labels = LabelManager(content["labels"], content.get("regions_class_order")).all_labels
    except (RuntimeError, ValueError, TypeError, AssertionError) as problem:
        found = f"{content['labels']} ({problem})"
        raise InputError(f"{file}, labels", found, "labels as nnU-Net has them", fix) from problem
    if labels != list(range(len(labels))):
        found = f"the values {', '.join(map(str, labels))}"
        raise InputError(f"{file}, labels", found, "0, 1, 2 and so on without a gap", fix)


def channel_names(dataset_json: dict) -> dict[str, str]:
    return dataset_json["modality"] if "modality" in dataset_json else dataset_json["channel_names"]
