"""Raw images without labels: which files make a case, and which images cannot be used."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

from nnunet_semcl.errors import InputError

GEOMETRY_TOLERANCE = 1e-3  # mm of spacing and origin, or cosine of a direction: files store rounded values


class UnusableImageError(Exception):
    """One image cannot be used; the others can. The message names the file."""


def find_images(folder: Path, file_ending: str, n_channels: int) -> dict[str, list[Path]]:
    """Finds the files of each case in a folder laid out as nnU-Net's imagesTr.

    Args:
        file_ending: file ending of the data set.
        n_channels: number of channels in the data set.

    Returns:
        Case -> its files, in the order of their channels.

    Raises:
        InputError: the folder does not exist or contains no file with that ending, nnU-Net cannot read a name, or a
            case has missing or extra channels.
    """
    if not folder.is_dir():
        raise InputError(f"-i: {folder} is not a folder", "Give the path of the folder of your images.")
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    fitting = [name for name in names if name.endswith(file_ending)]
    if not fitting:
        others = f", only {len(names)} files such as {names[0]}" if names else ""
        raise InputError(
            f"{folder} contains no images CASE_0000{file_ending}{others}",
            "Give your images the format and the names of those in imagesTr: nnU-Net reads one format per data set.",
        )
    if len(fitting) < len(names):
        print(f"{folder}: {len(names) - len(fitting)} files do not end in {file_ending} and are ignored")

    files = _files_by_channel(folder, fitting, file_ending)
    channels = list(range(n_channels))
    for case, numbers in files.items():
        # One file may hold all channels, as RGB pictures do: check_image looks, file by file.
        if list(numbers) not in (channels, [0]):
            raise InputError(
                f"{folder}, case {case}: the channels are {_listed(numbers)}, but the data set has {_listed(channels)}",
                "Complete the case, or move it out of the folder.",
            )
    return {case: list(numbers.values()) for case, numbers in files.items()}


def _files_by_channel(folder: Path, names: list[str], file_ending: str) -> dict[str, dict[int, Path]]:
    """Case -> channel -> file."""
    files: dict[str, dict[int, Path]] = {}
    for name in names:
        match = re.fullmatch(rf"(.+)_(\d{{4}}){re.escape(file_ending)}", name)
        # nnU-Net takes CASE_seg.b2nd for the segmentation of CASE.b2nd
        if not match or match[1].endswith("_seg"):
            raise InputError(
                f"{folder / name} is not named CASE_0000{file_ending}, with four digits for the channel and a CASE "
                "that does not end in _seg",
                "Rename the file so that nnU-Net can read it, or move it out of the folder.",
            )
        files.setdefault(match[1], {})[int(match[2])] = folder / name
    return files


def _listed(channels: Iterable[int]) -> str:
    return ", ".join(f"{channel:04d}" for channel in channels)


def check_image(files: list[Path], n_channels: int, reader: BaseReaderWriter) -> None:
    """Reads the files of a case one by one.

    Args:
        n_channels: number of channels in the data set.
        reader: nnU-Net's reader for this format.

    Raises:
        UnusableImageError: a file cannot be read or is truncated; it has NaN or infinite values as nnU-Net reads it
            (SimpleITK turns them into 0 in NIfTI), or a single value; the files differ in size, spacing, origin or
            direction; or the number of channels is wrong.
    """
    size: tuple[int, ...] | None = None
    geometry: dict[str, Any] = {}
    n_found = 0
    for file in files:
        try:
            if file.name.endswith((".nii", ".nii.gz")):
                # SimpleITK silently fills in what is missing, nibabel does not
                nibabel.load(file).dataobj.get_unscaled()  # type: ignore[attr-defined]  # NIfTI images have it
            image, properties = reader.read_images([str(file)])  # (C, X, Y, Z)
        except Exception as problem:  # the library of each format raises its own errors
            raise UnusableImageError(f"{file}: cannot be read ({one_line(problem)})") from problem
        if not np.isfinite(image).all():
            raise UnusableImageError(f"{file}: NaN or infinity among its values")
        if image.min() == image.max():
            raise UnusableImageError(f"{file}: the same value in every voxel")
        if size is None:
            size, geometry = image.shape[1:], properties
        differing = {"size"} if image.shape[1:] != size else _differing(geometry, properties)
        if differing:
            raise UnusableImageError(f"{file}: differs from {files[0].name} in {', '.join(sorted(differing))}")
        n_found += len(image)
    if n_found != n_channels:
        raise UnusableImageError(f"{files[0]}: number of channels is {n_found}, but the data set has {n_channels}")


def one_line(problem: Exception) -> str:
    """The last line of an error's message, where SimpleITK gives the cause, or the error's name if it has none."""
    return (str(problem).strip().splitlines() or [type(problem).__name__])[-1]


def _differing(first: dict[str, Any], other: dict[str, Any]) -> set[str]:
    """Names of the properties that differ. Each reader has its own, partly in nested dicts."""
    names: set[str] = set()
    for name, value in first.items():
        if isinstance(value, dict):
            names |= _differing(value, other[name])
        elif isinstance(value, str):
            names |= {name} if value != other[name] else set()
        elif np.shape(value) != np.shape(other[name]) or not np.allclose(value, other[name], atol=GEOMETRY_TOLERANCE):
            names.add(name)
    return names
