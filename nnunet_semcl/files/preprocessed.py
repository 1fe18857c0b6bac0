"""Which cases a folder of preprocessed data holds: one answer for all, and it is nnU-Net's."""

from __future__ import annotations

from pathlib import Path

from nnunet_semcl.errors import InputError
from nnunet_semcl.files.advice import preprocess_again


def preprocessed_cases(data: Path) -> set[str]:
    """Returns the cases that nnU-Net finds in the folder: those with an image.

    To nnU-Net CASE_seg.b2nd is the segmentation of CASE, so that a case of this name does not exist.

    Raises:
        InputError: a file belongs to no case, or there are cases of two formats.
    """
    files = {file for file in data.glob("*") if file.is_file()}
    formats = {file.suffix for file in files} - {".pkl", ".npy"}
    unexpected = {file for file in files if file.suffix not in (".pkl", ".npy", ".b2nd", ".npz")}
    if unexpected:
        raise InputError(f"{min(unexpected)} is not a file of a preprocessed case", "Move it out of the folder.")
    if len(formats) > 1:
        raise InputError(
            f"{data} contains cases as .b2nd and as .npz, but nnU-Net reads one format",
            f"To have one, {preprocess_again(data)}",
        )
    return {file.stem for file in files if file.suffix in formats and not file.name.endswith("_seg.b2nd")}


def check_files(data: Path, cases: set[str]) -> None:
    """Checks that each case has its segmentation and its properties.

    Raises:
        InputError: a file is missing.
    """
    for case in sorted(cases):
        for ending in ("_seg.b2nd", ".pkl") if (data / f"{case}.b2nd").is_file() else (".pkl",):
            if not (data / f"{case}{ending}").is_file():
                raise InputError(
                    f"{data / f'{case}{ending}'} does not exist, although the case has an image",
                    f"To create it again, {preprocess_again(data)}",
                )
