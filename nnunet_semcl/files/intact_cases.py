"""Checks that preprocessed cases are intact: each is read once, before hours of training depend on it."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import blosc2
import numpy as np
from tqdm import tqdm

from nnunet_semcl.distributed import rank, world_size
from nnunet_semcl.errors import InputError
from nnunet_semcl.files.cases import UNKNOWN, class_locations, open_case

TO_EXPORT = (  # properties that nnU-Net needs to save a validation case's prediction, after the last epoch
    "spacing",
    "shape_before_cropping",
    "bbox_used_for_cropping",
    "shape_after_cropping_and_before_resampling",
)
PREPROCESS_AGAIN = "Preprocess this case again with nnUNetv2_preprocess (an unlabelled one: nnunet-semcl unlabelled)."
T = TypeVar("T")


def check_cases_are_intact(
    labelled: Sequence[Path], unlabelled: Sequence[Path], channels: int, labels: Collection[int]
) -> None:
    """Reads the cases; with several processes, each reads its share.

    Args:
        labelled: files without extension.
        unlabelled: files without extension; only their images are opened.
        channels: number of channels in the data set.
        labels: those in dataset.json.

    Raises:
        InputError: see `check_image` and `check_labelled_case`.
    """
    checks: list[Callable[[], object]] = [partial(check_labelled_case, case, channels, labels) for case in labelled]
    checks += [partial(check_image, case, channels) for case in unlabelled]
    for check in tqdm(checks[rank() :: world_size()], "Checking cases", disable=True if rank() else None):
        check()


def check_image(case: Path, channels: int) -> tuple[int, ...]:
    """Reads an image and returns its shape along (x, y, z).

    Args:
        case: the file without extension.
        channels: number of channels in the data set.

    Raises:
        InputError: the file cannot be read, its shape is not (channels, x, y, z), it has no voxels, or a value is NaN
            or infinite.
    """
    file = _file(case)
    image = _read(file, lambda: open_case(case)[:])
    if image.ndim != 4 or len(image) != channels or image.size == 0:
        raise InputError(
            f"{file}: the shape {image.shape} is not ({channels}, x, y, z) with one voxel or more", PREPROCESS_AGAIN
        )
    not_finite = image.size - np.count_nonzero(np.isfinite(image))
    if not_finite:
        raise InputError(f"{file}: {not_finite} values are NaN or infinite", f"Fix the raw image. {PREPROCESS_AGAIN}")
    return image.shape[1:]


def check_labelled_case(case: Path, channels: int, labels: Collection[int]) -> None:
    """Reads the image, the segmentation and the properties of a case.

    Args:
        case: the file without extension.
        channels: number of channels in the data set.
        labels: those in dataset.json.

    Raises:
        InputError: see `check_image`; the segmentation cannot be read, has another shape than the image, or contains
            other labels; the properties cannot be read, lack a key, or name voxels outside the image.
    """
    shape = check_image(case, channels)
    file = _file(case)
    if file.suffix == ".npz":
        segmentation = _read(file, lambda: np.load(file)["seg"])
    else:
        file = case.with_name(f"{case.name}_seg.b2nd")
        segmentation = _read(file, lambda: blosc2.open(str(file), mode="r")[:])
    if segmentation.shape != (1, *shape):
        raise InputError(
            f"{file}: the shape {segmentation.shape} does not match the image, which needs {(1, *shape)}",
            PREPROCESS_AGAIN,
        )
    unknown = segmentation[~np.isin(segmentation, [UNKNOWN, *labels])]
    if unknown.size:
        raise InputError(
            f"{file}: the label {unknown[0]} is not one of {', '.join(map(str, labels))}, the labels in dataset.json",
            f"Fix the raw label file. {PREPROCESS_AGAIN}",
        )
    file = case.with_name(f"{case.name}.pkl")
    _check_properties(file, _read(file, lambda: pickle.loads(file.read_bytes())), shape)


def _check_properties(file: Path, properties: Any, shape: tuple[int, ...]) -> None:
    locations = class_locations(properties, str(file))
    missing = [key for key in TO_EXPORT if key not in properties]
    if missing:
        raise InputError(f"{file} lacks nnU-Net's properties {', '.join(missing)}", PREPROCESS_AGAIN)
    for obj, voxels in locations.items():
        if len(voxels) and (np.min(voxels) < 0 or (np.max(voxels, axis=0) >= (1, *shape)).any()):
            raise InputError(
                f"{file}: class_locations of object {obj} are not all within the image of {shape}", PREPROCESS_AGAIN
            )


def _file(case: Path) -> Path:
    """The image file, .b2nd, or .npz where an older version of nnU-Net saved the case."""
    compressed = case.with_name(f"{case.name}.b2nd")
    old = case.with_name(f"{case.name}.npz")
    return old if old.is_file() and not compressed.is_file() else compressed


def _read(file: Path, read: Callable[[], T]) -> T:
    try:
        return read()
    except Exception as problem:  # blosc2, numpy and pickle raise errors of many kinds
        reason = (str(problem).strip().splitlines() or [type(problem).__name__])[0]
        raise InputError(f"{file} cannot be read ({reason})", PREPROCESS_AGAIN) from problem
