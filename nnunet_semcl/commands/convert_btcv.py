"""Converts BTCV, the abdomen of the challenge "Multi-Atlas Labeling Beyond the Cranial Vault", to nnU-Net's raw format.

50 portal-venous CT scans. 30 of them have labels of 13 organs: img0001 to img0010 and img0021 to img0040. To get the
scans, register at https://www.synapse.org/Synapse:syn3193805 and download Abdomen/RawData.zip.
"""

from __future__ import annotations

import shutil
import sys
import zlib
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TypeVar, cast

import nibabel
import numpy as np
import SimpleITK as sitk
from nibabel.dataobj_images import DataobjImage
from nibabel.filebasedimages import ImageFileError
from nnunetv2.dataset_conversion.generate_dataset_json import generate_dataset_json
from tqdm import tqdm

from nnunet_semcl.errors import InputError
from nnunet_semcl.files.raw_dataset import free_folder, new_dataset

T = TypeVar("T")

TRAINING = (*range(1, 11), *range(21, 41))
"""Numbers of the labelled scans in the challenge."""

TESTING = tuple(range(61, 81))
"""Numbers of the scans without labels in the challenge."""

CASES = {number: f"img{number:04d}" for number in (*TRAINING, *TESTING)}
"""Number -> name of the case. Both are the challenge's own."""

ORGANS = (
    "spleen",
    "right kidney",
    "left kidney",
    "gallbladder",
    "esophagus",
    "liver",
    "stomach",
    "aorta",
    "inferior vena cava",
    "portal and splenic vein",
    "pancreas",
    "right adrenal gland",
    "left adrenal gland",
)
LABELS = {"background": 0} | {name: value for value, name in enumerate(ORGANS, start=1)}

TOLERANCE = 1e-3  # mm, between the headers of image and label: they store 32-bit numbers
UNZIP_AGAIN = "Unzip RawData.zip from https://www.synapse.org/Synapse:syn3193805 again."


def convert_btcv(rawdata: Path, dataset_id: int) -> Path:
    """Copies the challenge's files to nnUNet_raw/DatasetXXX_BTCV. The folder appears only when it is complete.

    Args:
        rawdata: the challenge's folder RawData with Training/img, Training/label and optionally Testing/img, or its
            parent folder.
        dataset_id: 1 to 999, not used in nnUNet_raw.

    Returns:
        The folder of the data set.

    Raises:
        InputError: before anything is written, see also `free_folder`. A file is missing, unknown
            or unreadable. An image and its label differ in geometry, an image has a value that is not finite, or a
            label has a value other than 0 to 13.
    """
    folder = free_folder(dataset_id, "BTCV")
    root = _find_training(rawdata).parent
    images = _find_scans(root / "Training", "img", TRAINING)
    labels = _find_scans(root / "Training", "label", TRAINING)
    tests = _find_scans(root / "Testing", "img", TESTING, require_all=False)
    for number in TRAINING:
        _check_geometry(images[number], labels[number])
    for file in tests.values():
        _read_geometry(file)
    print(f"Checking {len(images)} labelled and {len(tests)} unlabelled scans in {root}")
    for file in _progress([*images.values(), *tests.values()], "images"):
        _check_image(file)
    for file in _progress(labels.values(), "labels"):
        _check_label(file)

    copies = {f"imagesTr/{CASES[number]}_0000.nii.gz": file for number, file in images.items()}
    copies |= {f"labelsTr/{CASES[number]}.nii.gz": file for number, file in labels.items()}
    copies |= {f"imagesTs/{CASES[number]}_0000.nii.gz": file for number, file in tests.items()}
    with new_dataset(folder) as new:
        for name, file in _progress(copies.items(), "copies"):
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, new / name)
        generate_dataset_json(
            str(new),
            channel_names={"0": "CT"},
            labels=dict(LABELS),
            num_training_cases=len(images),
            file_ending=".nii.gz",
            dataset_name="BTCV",
            description="Multi-Atlas Labeling Beyond the Cranial Vault, abdomen: portal-venous CT, 13 organs",
            reference="https://www.synapse.org/Synapse:syn3193805",
            license="see reference",
            converted_by="nnunet-semcl",
        )
    print(
        f"Wrote {folder}: {len(images)} labelled and {len(tests)} unlabelled cases\n"
        f"Next: nnUNetv2_plan_and_preprocess -d {dataset_id}"
    )
    return folder


def _find_training(rawdata: Path) -> Path:
    for training in (rawdata / "Training", rawdata / "RawData" / "Training"):
        if training.is_dir():
            return training
    raise InputError(
        f"{rawdata}: there is no folder Training in it, and no RawData/Training",
        "Give the path of the challenge's folder RawData, which has Training/img and Training/label.",
    )


def _find_scans(parent: Path, kind: str, numbers: tuple[int, ...], require_all: bool = True) -> dict[int, Path]:
    """Number of the scan -> its NIfTI file in parent/kind."""
    files = {number: parent / kind / f"{kind}{number:04d}.nii.gz" for number in numbers}
    missing = [file.name for file in files.values() if not file.is_file()]
    if missing and require_all:
        raise InputError(
            f"{parent / kind} lacks {', '.join(missing)} (the challenge has {len(files)} files there: "
            f"{kind}0001.nii.gz to {kind}0010.nii.gz and {kind}0021.nii.gz to {kind}0040.nii.gz)",
            UNZIP_AGAIN,
        )
    # macOS writes ._NAME next to NAME
    unknown = {file for file in (parent / kind).glob("*.nii*") if not file.name.startswith(".")} - {*files.values()}
    if unknown:
        raise InputError(
            f"{min(unknown)}: the challenge has no such scan in this folder",
            "Move the file away; only the challenge's scans may be here.",
        )
    return {number: file for number, file in files.items() if file.name not in missing}


def _check_geometry(image: Path, label: Path) -> None:
    """Checks that the voxels of image and label coincide. Reads headers only."""
    image_geometry, label_geometry = _read_geometry(image), _read_geometry(label)
    for key, expected in image_geometry.items():
        value = label_geometry[key]
        if len(value) != len(expected) or not np.allclose(value, expected, rtol=0, atol=TOLERANCE):
            raise InputError(f"{label}: its {key} is {value}, but that of {image} is {expected}", UNZIP_AGAIN)


def _read_geometry(file: Path) -> dict[str, tuple[float, ...]]:
    """Size in voxels, spacing and origin in mm, and direction, each in the order (x, y, z)."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(file))
    try:
        reader.ReadImageInformation()
    except RuntimeError as problem:
        raise _unreadable(file, problem) from problem
    if reader.GetDimension() != 3:
        raise InputError(f"{file}: the scan has {reader.GetDimension()} dimensions, not 3", UNZIP_AGAIN)
    return {
        "size": reader.GetSize(),
        "spacing": reader.GetSpacing(),
        "origin": reader.GetOrigin(),
        "direction": reader.GetDirection(),
    }


def _check_image(file: Path) -> None:
    n_not_finite = np.count_nonzero(~np.isfinite(_read_voxels(file)))
    if n_not_finite:
        raise InputError(f"{file}: {n_not_finite} voxels are NaN or infinite, not HU", UNZIP_AGAIN)


def _check_label(file: Path) -> None:
    invalid = np.setdiff1d(_read_voxels(file), list(LABELS.values()))
    if invalid.size:
        raise InputError(f"{file}: the labels {invalid[:5].tolist()} are not in 0 to {len(ORGANS)}", UNZIP_AGAIN)


def _read_voxels(file: Path) -> np.ndarray:
    # not with SimpleITK: it silently reads NaN, and the missing end of a broken download, as 0
    try:
        return np.asanyarray(cast(DataobjImage, nibabel.load(file)).dataobj)
    except (ImageFileError, OSError, EOFError, ValueError, zlib.error) as problem:
        raise _unreadable(file, problem) from problem


def _unreadable(file: Path, problem: Exception) -> InputError:
    reason = (str(problem).strip() or type(problem).__name__).splitlines()[-1]
    return InputError(f"{file}: cannot be read as a NIfTI image ({reason})", UNZIP_AGAIN)


def _progress(items: Collection[T], title: str) -> Iterable[T]:
    return tqdm(items, title, leave=False, disable=not sys.stderr.isatty())
