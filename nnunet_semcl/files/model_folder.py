"""The model's folder in nnUNet_results, tried before pretraining: nnU-Net writes there only when it trains."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from tempfile import TemporaryFile

from nnunet_semcl.errors import InputError, access_error
from nnunet_semcl.files.datasets import id_of

FINGERPRINT = "dataset_fingerprint.json"
PREVIOUS_RUN = "previous_run"
WRITTEN_BY_NNUNET = ("plans.json", "dataset.json", FINGERPRINT)


def check_model_folder(folder: Path, preprocessed: Path) -> None:
    """Checks that nnU-Net can write what it writes when its training starts. Changes nothing.

    Args:
        folder: of the model, TRAINER__PLANS__CONFIGURATION, which exists.
        preprocessed: the data set's folder, from which nnU-Net copies the fingerprint.

    Raises:
        InputError: a file or the folder cannot be written, or there is no fingerprint to copy.
    """
    if not (preprocessed / FINGERPRINT).is_file():
        raise InputError(
            f"{preprocessed / FINGERPRINT} is missing, but nnU-Net copies it to the model's folder",
            f"Extract it again: nnUNetv2_extract_fingerprint -d {id_of(preprocessed) or 'ID'}",
        )
    file = folder
    try:
        TemporaryFile(dir=folder).close()
        for name in WRITTEN_BY_NNUNET:
            file = folder / name
            if file.exists():
                file.open("ab").close()
    except OSError as problem:
        raise access_error(problem, file, "nnUNet_results") from problem


def set_checkpoints_aside(fold: Path) -> tuple[int, Path]:
    """Moves a fold's checkpoints to a new folder previous_run_1, _2, ... Returns their number, and the folder."""
    checkpoints = list(fold.glob("checkpoint_*.pth"))
    number = next(number for number in itertools.count(1) if not (fold / f"{PREVIOUS_RUN}_{number}").exists())
    aside = fold / f"{PREVIOUS_RUN}_{number}"
    if checkpoints:
        aside.mkdir()
    for checkpoint in checkpoints:
        os.replace(checkpoint, aside / checkpoint.name)
    return len(checkpoints), aside
