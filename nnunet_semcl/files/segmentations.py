"""A folder of segmentations, one file a case, as nnU-Net writes predictions and keeps ground truth."""

from __future__ import annotations

from pathlib import Path

from nnunet_semcl.errors import InputError


def find_segmentations(folder: Path, ending: str) -> dict[str, Path]:
    """Case -> file.

    Raises:
        InputError: the folder does not exist, or has none.
    """
    files = {file.name.removesuffix(ending): file for file in sorted(folder.glob(f"*{ending}"))}
    if not files:
        raise InputError(
            f"{folder} {'has no file' if folder.is_dir() else 'does not exist, with files'} *{ending}",
            "Give a folder of segmentations.",
        )
    return files
