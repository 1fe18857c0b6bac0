"""A new data set in nnU-Net's raw format, which appears only when it is complete."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nnunetv2.paths import nnUNet_raw

from nnunet_semcl.errors import InputError, access_error


def free_folder(dataset_id: int, name: str) -> Path:
    """Returns the folder that a new data set gets in nnUNet_raw.

    Raises:
        InputError: nnUNet_raw is not set, or the id is invalid or in use.
    """
    raw = nnUNet_raw.get()
    if not raw or not Path(raw).is_dir():
        raise InputError(
            f"nnUNet_raw={raw} is not a folder" if raw else "nnUNet_raw is not set",
            "Set it to the folder of nnU-Net's raw data: export nnUNet_raw=/path/to/nnUNet_raw",
        )
    if not 1 <= dataset_id <= 999:
        raise InputError(f"-d {dataset_id}: an id of nnU-Net is from 1 to 999", "Choose an unused id.")
    folder = Path(raw) / f"Dataset{dataset_id:03d}_{name}"
    for other in Path(raw).glob(f"{folder.name[:10]}_*"):
        raise InputError(
            f"{other}: a data set with the id {dataset_id} exists already",
            "Choose another id with -d, or move that folder away.",
        )
    return folder


@contextmanager
def new_dataset(folder: Path) -> Iterator[Path]:
    """Yields an empty folder that becomes the data set's after the block; after an error nothing is left.

    Raises:
        InputError: it cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".convert-") as temporary:
            new = Path(temporary) / folder.name
            new.mkdir()
            yield new
            os.replace(new, folder)
    except OSError as error:
        raise access_error(error, folder, "nnUNet_raw") from error
