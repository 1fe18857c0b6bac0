"""Images without labels as a user lays them down: which files make a case, and which images are of no use."""

from __future__ import annotations

import re
from pathlib import Path

import nibabel
import numpy as np
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

from nnunet_semcl.errors import InputError

GEOMETRY_TOLERANCE = 1e-3  # mm of spacing and origin, or a direction's cosine: files round them


class UnusableImage(Exception):
    """One image cannot be used, the others can. The message names the file."""


def find_images(folder: Path, file_ending: str, n_channels: int, reader: BaseReaderWriter) -> dict[str, list[Path]]:
    """The files of each case in a folder laid out as nnU-Net's imagesTr, in the order of their channels.

    Raises InputError: no folder, no file with the data set's ending, a name that nnU-Net could not read, a case with
    missing or too many channels.
    """
    if not folder.is_dir():
        raise InputError("-i", f"{folder}, which is no folder", "a folder of images", "Give its path.")
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    fitting = [name for name in names if name.endswith(file_ending)]
    if not fitting:
        raise InputError(
            str(folder),
            f"{len(names)} files such as {names[0]}" if names else "no files",
            f"images named as in the data set's imagesTr: CASE_0000{file_ending}",
            "Convert or rename them; nnU-Net reads one format per data set.",
        )
    if len(fitting) < len(names):
        print(f"{folder}: {len(names) - len(fitting)} files do not end in {file_ending} and are not looked at")

    files: dict[str, dict[int, Path]] = {}
    for name in fitting:
        match = re.fullmatch(rf"(.+)_(\d{{4}}){re.escape(file_ending)}", name)
        # CASE_seg.b2nd is what nnU-Net calls the segmentation of CASE.b2nd
        if not match or match[1].endswith("_seg"):
            raise InputError(
                str(folder / name),
                "a name that nnU-Net cannot read",
                f"CASE_0000{file_ending} with four digits for the channel, CASE not ending in _seg",
                "Rename it, or take it out of the folder.",
            )
        files.setdefault(match[1], {})[int(match[2])] = folder / name

    channels = list(range(n_channels))
    one_file_each = all(list(numbers) == [0] for numbers in files.values())
    if n_channels > 1 and one_file_each and _holds_all(folder / fitting[0], n_channels, reader):
        channels = [0]
    for case, numbers in files.items():
        if list(numbers) != channels:
            raise InputError(
                f"{folder}, case {case}",
                f"channels {', '.join(f'{number:04d}' for number in numbers)}",
                f"{', '.join(f'{number:04d}' for number in channels)}, as the data set has",
                "Complete the case, or take it out of the folder.",
            )
    return {case: list(numbers.values()) for case, numbers in files.items()}


def check_image(files: list[Path], n_channels: int, reader: BaseReaderWriter) -> None:
    """Reads a case's files one by one.

    Raises UnusableImage: a file cannot be read or is cut off, has NaN or infinity as nnU-Net reads it (SimpleITK makes
    them 0 in NIfTI), or one value alone; the files differ in size, spacing, origin or direction; not the data set's
    number of channels.
    """
    size: tuple[int, ...] | None = None
    geometry: dict = {}
    n_found = 0
    for file in files:
        try:
            if file.name.endswith((".nii", ".nii.gz")):
                nibabel.load(file).dataobj.get_unscaled()  # SimpleITK fills up what is missing, without a word
            image, properties = reader.read_images([str(file)])  # (C, X, Y, Z)
        except Exception as problem:  # every format's library has errors of its own
            raise UnusableImage(f"{file}: cannot be read ({one_line(problem)})") from problem
        if not np.isfinite(image).all():
            raise UnusableImage(f"{file}: NaN or infinity among its values")
        if image.min() == image.max():
            raise UnusableImage(f"{file}: the same value in every voxel")
        if size is None:
            size, geometry = image.shape[1:], properties
        differing = {"size"} if image.shape[1:] != size else _differing(geometry, properties)
        if differing:
            raise UnusableImage(f"{file}: another {', another '.join(sorted(differing))} than {files[0].name}")
        n_found += len(image)
    if n_found != n_channels:
        raise UnusableImage(f"{files[0]}: {n_found} channels where the data set has {n_channels}")


def one_line(problem: Exception) -> str:
    """The last line of an error's message, which in SimpleITK's is the one that tells, or else its name."""
    return (str(problem).strip().splitlines() or [type(problem).__name__])[-1]


def _holds_all(file: Path, n_channels: int, reader: BaseReaderWriter) -> bool:
    """Whether one file has all channels, as RGB pictures do. An unreadable one passes: check_image tells of it."""
    try:
        return len(reader.read_images([str(file)])[0]) == n_channels
    except Exception:
        return True


def _differing(first: dict, other: dict) -> set[str]:
    """Names of the properties that differ; each reader has its own, in dicts within the dict."""
    names: set[str] = set()
    for name, value in first.items():
        if isinstance(value, dict):
            names |= _differing(value, other[name])
        elif isinstance(value, str):
            names |= {name} if value != other[name] else set()
        elif np.shape(value) != np.shape(other[name]) or not np.allclose(value, other[name], atol=GEOMETRY_TOLERANCE):
            names.add(name)
    return names
