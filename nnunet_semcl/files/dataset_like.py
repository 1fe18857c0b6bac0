"""A data set without labels: nnU-Net cannot plan it, so it takes the plans of another one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from nnunet_semcl.errors import InputError, access_error
from nnunet_semcl.files.datasets import NAME, find_dataset, id_of, read_dataset_json
from nnunet_semcl.files.json_files import read_json, write_json
from nnunet_semcl.files.model_folder import FINGERPRINT
from nnunet_semcl.files.plans import read_plans


def create_dataset_like(name: str, source: Path, plans_identifier: str) -> Path:
    """Creates a data set in nnUNet_preprocessed that has no case yet; one that was created so before stays as it is.

    Args:
        name: of the new data set, such as Dataset018_Scans; for one that was created before, its id is enough.
        source: folder of the data set in nnUNet_preprocessed that gives plans, fingerprint and dataset.json.
        plans_identifier: of the plans.

    Returns:
        The folder.

    Raises:
        InputError: the name is not one of nnU-Net's, its id belongs to another data set, or the data set exists and has
            other plans.
    """
    folder = source.parent / name if NAME.match(name) else find_dataset(name)
    content: dict[str, Any] = {
        "dataset.json": read_dataset_json(source),
        FINGERPRINT: read_json(source / FINGERPRINT),
        f"{plans_identifier}.json": read_plans(source / f"{plans_identifier}.json") | {"dataset_name": folder.name},
    }
    _check_id(folder)
    for file, expected in content.items():
        if (folder / file).is_file() and read_json(folder / file) != expected:
            raise InputError(
                f"{folder / file} is another one than that of {source.name}, so the data set was not made like it",
                "Choose a new name with -d, or leave --like out.",
            )
    try:
        folder.mkdir(exist_ok=True)
    except OSError as problem:
        raise access_error(problem, folder, "nnUNet_preprocessed") from problem
    for file, expected in content.items():
        write_json(expected, folder / file)
    return folder


def _check_id(folder: Path) -> None:
    """nnU-Net finds a data set by its id in all three folders, and stops if the names differ."""
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        root = Path(os.environ.get(variable) or folder.parent)
        others = [other for other in root.glob("Dataset*_*") if id_of(other) == id_of(folder) != 0]
        for other in others:
            if other.name != folder.name:
                raise InputError(f"{folder.name}: {other} has the same id", "Choose another number with -d.")
