"""Whether preprocessed cases are whole: each is read once, before hours of training go into them."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
from tqdm import tqdm

from nnunet_semcl.distributed import rank, world_size
from nnunet_semcl.errors import InputError
from nnunet_semcl.files.cases import UNKNOWN, class_locations, open_case

TO_EXPORT = (  # the prediction of a validation case, after the last epoch
    "spacing",
    "shape_before_cropping",
    "bbox_used_for_cropping",
    "shape_after_cropping_and_before_resampling",
)
AGAIN = "Preprocess this case again (nnUNetv2_preprocess; where it came without labels, nnunet-semcl unlabelled)."


def check_cases_are_intact(
    labelled: Sequence[Path], unlabelled: Sequence[Path], channels: int, labels: Collection[int]
) -> None:
    """Reads the cases, each of several processes its share.

    Args:
        labelled, unlabelled: files without extension; of the latter the images alone are opened.
        channels: that the data set has.
        labels: that dataset.json names.

    Raises:
        InputError: see `check_image` and `check_labelled_case`.
    """
    checks = [partial(check_labelled_case, case, channels, labels) for case in labelled]
    checks += [partial(check_image, case, channels) for case in unlabelled]
    for check in tqdm(checks[rank() :: world_size()], "Checking cases", disable=True if rank() else None):
        check()


def check_image(case: Path, channels: int) -> tuple[int, ...]:
    """Reads an image; returns its shape along (x, y, z).

    Args:
        case: the file without extension.
        channels: that the data set has.

    Raises:
        InputError: the file cannot be read, is not (channels, x, y, z), has no voxel, or one that is not finite.
    """
    file = _file(case)
    image = _read(file, lambda: open_case(case)[:])
    if image.ndim != 4 or len(image) != channels or image.size == 0:
        raise InputError(str(file), f"the shape {image.shape}", f"({channels}, x, y, z) and some voxels", AGAIN)
    n_strange = image.size - np.count_nonzero(np.isfinite(image))
    if n_strange:
        fix = f"Mend the image that it was made of. {AGAIN}"
        raise InputError(str(file), f"{n_strange} values that are NaN or infinite", "numbers alone", fix)
    return image.shape[1:]


def check_labelled_case(case: Path, channels: int, labels: Collection[int]) -> None:
    """Reads image, segmentation and properties of a case.

    Args:
        labels: that dataset.json names.

    Raises:
        InputError: see `check_image`; the segmentation cannot be read, is not as large as the image or has other
            labels; the properties cannot be read, or lack voxels of the objects or name some beyond the image.
    """
    shape = check_image(case, channels)
    file = _file(case)
    if file.suffix == ".npz":
        segmentation = _read(file, lambda: np.load(file)["seg"])
    else:
        file = case.with_name(f"{case.name}_seg.b2nd")
        segmentation = _read(file, lambda: blosc2.open(str(file), mode="r")[:])
    if segmentation.shape != (1, *shape):
        raise InputError(str(file), f"the shape {segmentation.shape}", f"(1, *{shape}), as its image has", AGAIN)
    strange = segmentation[~np.isin(segmentation, [UNKNOWN, *labels])]
    if strange.size:
        expected = f"the labels of dataset.json alone, {', '.join(map(str, labels))}"
        raise InputError(
            str(file), f"the label {strange[0]}", expected, f"Mend the label file that it was made of. {AGAIN}"
        )
    file = case.with_name(f"{case.name}.pkl")
    properties = _read(file, lambda: pickle.loads(file.read_bytes()))
    locations = class_locations(properties, str(file))
    missing = [key for key in TO_EXPORT if key not in properties]
    if missing:
        raise InputError(str(file), f"no {', '.join(missing)}", "properties as nnU-Net writes them", AGAIN)
    for o, voxels in locations.items():
        if len(voxels) and (np.min(voxels) < 0 or (np.max(voxels, axis=0) >= (1, *shape)).any()):
            raise InputError(str(file), f"voxels of object {o} beyond the image", f"voxels within {shape}", AGAIN)


def _file(case: Path) -> Path:
    """As nnU-Net saves it now, or, where that is not there, as it did in former versions."""
    compressed = case.with_name(f"{case.name}.b2nd")
    former = case.with_name(f"{case.name}.npz")
    return former if former.is_file() and not compressed.is_file() else compressed


def _read(file: Path, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except Exception as problem:  # blosc2, numpy and pickle have errors of many kinds
        reason = (str(problem).strip().splitlines() or [type(problem).__name__])[0]
        raise InputError(str(file), f"a file that cannot be read ({reason})", "a whole one", AGAIN) from problem
