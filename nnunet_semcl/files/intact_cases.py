"""Checks that preprocessed cases are intact: each is read once, before hours of training depend on it.

Which files were read is written beside the data set's folders, by size and time: only new and changed ones are read
again.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import blosc2
import numpy as np
from nnunetv2.configuration import default_num_processes
from tqdm import tqdm

from nnunet_semcl.distributed import all_gather_object, rank, world_size
from nnunet_semcl.errors import InputError
from nnunet_semcl.files.advice import UNLABELLED, preprocess_again
from nnunet_semcl.files.cases import UNKNOWN, class_locations, open_case
from nnunet_semcl.files.json_files import read_json, write_json

RECORD = "intact_cases.json"  # not within a folder of cases, where nnU-Net wants files of cases alone

TO_EXPORT = (  # properties that nnU-Net needs to save a validation case's prediction, after the last epoch
    "spacing",
    "shape_before_cropping",
    "bbox_used_for_cropping",
    "shape_after_cropping_and_before_resampling",
)
T = TypeVar("T")
Check = tuple[Callable[[], object], list[Path]]  # what reads a case, and the files that it reads


def check_cases_are_intact(
    labelled: Sequence[Path], unlabelled: Sequence[Path], channels: int, labels: Collection[int]
) -> None:
    """Reads the cases that no earlier call has read; with several processes, each reads its share.

    Args:
        labelled: files without extension.
        unlabelled: files without extension; only their images are opened.
        channels: number of channels in the data set.
        labels: those in dataset.json.

    Raises:
        InputError: see `check_image` and `check_labelled_case`.
    """
    record = next(iter((*labelled, *unlabelled))).parent.parent / RECORD
    expected = {"channels": channels, "labels": list(labels)}
    known = _read_record(record, expected)
    checks: list[Check] = [(partial(check_labelled_case, case, channels, labels), _files(case)) for case in labelled]
    checks += [(partial(check_image, case, channels), [_file(case)]) for case in unlabelled]
    new = [(check, files) for check, files in checks if not _is_known(files, known)]
    found: dict[str, list[int]] = {}
    with ThreadPoolExecutor(default_num_processes) as pool:  # reading and decompressing are not Python's work
        running = {pool.submit(check): files for check, files in new[rank() :: world_size()]}
        try:
            for done in tqdm(as_completed(running), "Checking cases", len(running), disable=True if rank() else None):
                done.result()
                found |= {_key(file): _signature(file) for file in running[done]}
        finally:
            pool.shutdown(cancel_futures=True)
    everyones = {key: value for each in all_gather_object(found) for key, value in each.items()}
    if rank() == 0 and everyones:
        with suppress(InputError):  # a folder that cannot be written costs the reading of its cases, each time
            write_json({**expected, "files": known | everyones}, record)


def _read_record(file: Path, expected: dict[str, Any]) -> dict[str, list[int]]:
    """The files that were read, with size and time; none if they were read for other channels or labels."""
    try:
        content = read_json(file)
    except InputError:
        return {}
    if not isinstance(content, dict) or any(content.get(key) != value for key, value in expected.items()):
        return {}
    files = content.get("files")
    return files if isinstance(files, dict) else {}


def _is_known(files: list[Path], known: dict[str, list[int]]) -> bool:
    return all(file.is_file() and known.get(_key(file)) == _signature(file) for file in files)


def _key(file: Path) -> str:
    return f"{file.parent.name}/{file.name}"


def _signature(file: Path) -> list[int]:
    status = file.stat()
    return [status.st_size, status.st_mtime_ns]


def _files(case: Path) -> list[Path]:
    """The files of a labelled case."""
    image, properties = _file(case), case.with_name(f"{case.name}.pkl")
    return [image, properties] if image.suffix == ".npz" else [image, _segmentation(case), properties]


def _segmentation(case: Path) -> Path:
    """The file that holds the segmentation; an older nnU-Net saved one file for both."""
    image = _file(case)
    return image if image.suffix == ".npz" else case.with_name(f"{case.name}_seg.b2nd")


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
    # Not what nnU-Net may have unpacked beside an archive: it verifies that, and unpacks again what is broken.
    image = _read(file, lambda: np.load(file)["data"] if file.suffix == ".npz" else open_case(case)[:])
    if image.ndim != 4 or len(image) != channels or image.size == 0:
        raise InputError(
            f"{file}: the shape {image.shape} is not ({channels}, x, y, z) with one voxel or more",
            _create_again(file),
        )
    not_finite = image.size - np.count_nonzero(np.isfinite(image))
    if not_finite:
        raise InputError(
            f"{file}: {not_finite} values are NaN or infinite", _create_again(file, "Fix the raw image, then")
        )
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
    file, segmentation = _segmentation(case), read_segmentation(case)
    if segmentation.shape != (1, *shape):
        raise InputError(
            f"{file}: the shape {segmentation.shape} does not match the image, which needs {(1, *shape)}",
            _create_again(file),
        )
    unknown = segmentation[~np.isin(segmentation, [UNKNOWN, *labels])]
    if unknown.size:
        raise InputError(
            f"{file}: the label {unknown[0]} is not one of {', '.join(map(str, labels))}, the labels in dataset.json",
            _create_again(file, "Fix the raw label file, then"),
        )
    file = case.with_name(f"{case.name}.pkl")
    _check_properties(file, _read(file, lambda: pickle.loads(file.read_bytes())), shape)


def read_segmentation(case: Path) -> np.ndarray:
    """Reads the segmentation (1, X, Y, Z) of a labelled case.

    Args:
        case: the file without extension.

    Raises:
        InputError: it cannot be read.
    """
    file = _segmentation(case)
    return _read(file, lambda: np.load(file)["seg"] if file.suffix == ".npz" else blosc2.open(str(file), mode="r")[:])


def _check_properties(file: Path, properties: Any, shape: tuple[int, ...]) -> None:
    locations = class_locations(properties, str(file))
    missing = [key for key in TO_EXPORT if key not in properties]
    if missing:
        raise InputError(f"{file} lacks nnU-Net's properties {', '.join(missing)}", _create_again(file))
    for obj, voxels in locations.items():
        if len(voxels) and (np.min(voxels) < 0 or (np.max(voxels, axis=0) >= (1, *shape)).any()):
            raise InputError(
                f"{file}: class_locations of object {obj} are not all within the image of {shape}", _create_again(file)
            )


def _create_again(file: Path, start: str = "To create it again,") -> str:
    # nnunet-semcl unlabelled leaves complete cases as they are
    delete = "delete it and " if file.parent.name.endswith(UNLABELLED) else ""
    return f"{start} {delete}{preprocess_again(file.parent)}"


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
        raise InputError(f"{file} cannot be read ({reason})", _create_again(file)) from problem
