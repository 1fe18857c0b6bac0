"""BTCV, the abdomen of the challenge "Multi-Atlas Labeling Beyond the Cranial Vault", in nnU-Net's raw layout.

50 portal-venous CT scans, 30 of them with the labels of 13 organs: img0001 to img0010 and img0021 to img0040. Whoever
wants them registers at https://www.synapse.org/Synapse:syn3193805 and downloads Abdomen/RawData.zip.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import zlib
from collections.abc import Collection, Iterable
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk
from nibabel.filebasedimages import ImageFileError
from nnunetv2.dataset_conversion.generate_dataset_json import generate_dataset_json
from nnunetv2.paths import nnUNet_raw
from tqdm import tqdm

from nnunet_semcl.errors import InputError

TRAINING = (*range(1, 11), *range(21, 41))
"""The challenge's numbers of the labelled scans."""

TESTING = tuple(range(61, 81))
"""The challenge's numbers of the scans without labels."""

CASES = {number: f"img{number:04d}" for number in (*TRAINING, *TESTING)}
"""The challenge's number -> the case's name, which is the challenge's own."""

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

TOLERANCE = 1e-3  # between the headers of image and label, in mm: they store 32-bit numbers
DOWNLOAD = "Unpack RawData.zip of https://www.synapse.org/Synapse:syn3193805 again."


def convert_btcv(rawdata: Path, dataset_id: int) -> Path:
    """Copies the challenge's files into nnUNet_raw/DatasetXXX_BTCV, which appears once it is whole.

    Args:
        rawdata: the challenge's folder RawData, with Training/img, Training/label and perhaps Testing/img; or the
            folder that RawData lies in.
        dataset_id: 1 to 999, free in nnUNet_raw.

    Returns:
        The data set's folder.

    Raises:
        InputError: before anything is written. nnUNet_raw is not set or the id is in use; files are missing, unknown
            or unreadable; an image and its label lie apart; an image is not finite, a label not 0 to 13.
    """
    folder = _free_folder(dataset_id)
    root = _find_training(rawdata).parent
    images = _find_scans(root / "Training", "img", TRAINING)
    labels = _find_scans(root / "Training", "label", TRAINING)
    tests = _find_scans(root / "Testing", "img", TESTING, all_of_them=False)
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
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".btcv-") as temporary:
        new = Path(temporary) / folder.name
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
        os.replace(new, folder)
    print(
        f"Wrote {folder}: {len(images)} labelled, {len(tests)} unlabelled cases\n"
        f"Next: nnUNetv2_plan_and_preprocess -d {dataset_id}"
    )
    return folder


def _free_folder(dataset_id: int) -> Path:
    raw = nnUNet_raw.get()
    if not raw or not Path(raw).is_dir():
        raise InputError(
            "nnUNet_raw",
            f"{raw!r}, which is no folder" if raw else "nothing",
            "the folder of nnU-Net's raw data",
            "Set it: export nnUNet_raw=/path/to/nnUNet_raw",
        )
    if not 1 <= dataset_id <= 999:
        raise InputError("-d", f"{dataset_id}", "1 to 999", "Choose an id that is free.")
    folder = Path(raw) / f"Dataset{dataset_id:03d}_BTCV"
    for other in Path(raw).glob(f"{folder.name[:10]}_*"):
        raise InputError(str(other), "a data set", "a free id", "Choose another with -d, or move the folder away.")
    return folder


def _find_training(rawdata: Path) -> Path:
    for training in (rawdata / "Training", rawdata / "RawData" / "Training"):
        if training.is_dir():
            return training
    raise InputError(
        str(rawdata),
        "no folder Training, nor RawData with one in it",
        "the challenge's RawData with Training/img and Training/label",
        "Give its path.",
    )


def _find_scans(parent: Path, kind: str, numbers: tuple[int, ...], all_of_them: bool = True) -> dict[int, Path]:
    """The challenge's number -> the file, for the NIfTI files in parent/kind."""
    files = {number: parent / kind / f"{kind}{number:04d}.nii.gz" for number in numbers}
    missing = [file.name for file in files.values() if not file.is_file()]
    if missing and all_of_them:
        raise InputError(
            str(parent / kind),
            f"no {', '.join(missing)}",
            f"the challenge's {len(files)}, {kind}0001.nii.gz to {kind}0010.nii.gz and {kind}0021.nii.gz to "
            f"{kind}0040.nii.gz",
            DOWNLOAD,
        )
    # a name with a dot in front is not a scan but what macOS keeps beside one
    strange = {file for file in (parent / kind).glob("*.nii*") if not file.name.startswith(".")} - {*files.values()}
    if strange:
        raise InputError(
            str(min(strange)), "a scan that the challenge does not have there", "the challenge's alone", "Move it away."
        )
    return {number: file for number, file in files.items() if file.name not in missing}


def _check_geometry(image: Path, label: Path) -> None:
    """Whether a voxel of the label lies on the image's; reads headers only."""
    of_image, of_label = _read_geometry(image), _read_geometry(label)
    for key, value in of_image.items():
        if len(of_label[key]) != len(value) or not np.allclose(of_label[key], value, rtol=0, atol=TOLERANCE):
            raise InputError(str(label), f"{key} {of_label[key]}", f"{value} as in {image}", DOWNLOAD)


def _read_geometry(file: Path) -> dict[str, tuple[float, ...]]:
    """Size in voxels, spacing and origin in mm, direction: along (x, y, z)."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(file))
    try:
        reader.ReadImageInformation()
    except RuntimeError as problem:
        raise _unreadable(file, problem) from problem
    if reader.GetDimension() != 3:
        raise InputError(str(file), f"{reader.GetDimension()} dimensions", "3", DOWNLOAD)
    return {
        "size": reader.GetSize(),
        "spacing": reader.GetSpacing(),
        "origin": reader.GetOrigin(),
        "direction": reader.GetDirection(),
    }


def _check_image(file: Path) -> None:
    n_strange = np.count_nonzero(~np.isfinite(_read_voxels(file)))
    if n_strange:
        raise InputError(str(file), f"{n_strange} voxels that are NaN or infinite", "HU everywhere", DOWNLOAD)


def _check_label(file: Path) -> None:
    strange = np.setdiff1d(_read_voxels(file), list(LABELS.values()))
    if strange.size:
        raise InputError(
            str(file), f"the values {strange[:5].tolist()}", f"the labels 0 to {len(ORGANS)} alone", DOWNLOAD
        )


def _read_voxels(file: Path) -> np.ndarray:
    # not by SimpleITK, to which NaN and what a broken download lacks are silently 0
    try:
        return np.asanyarray(nibabel.load(file).dataobj)
    except (ImageFileError, OSError, EOFError, ValueError, zlib.error) as problem:
        raise _unreadable(file, problem) from problem


def _unreadable(file: Path, problem: Exception) -> InputError:
    reason = (str(problem).strip() or type(problem).__name__).splitlines()[-1]
    return InputError(str(file), f"a file that cannot be read ({reason})", "a NIfTI image", DOWNLOAD)


def _progress(items: Collection, title: str) -> Iterable:
    return tqdm(items, title, leave=False, disable=not sys.stderr.isatty())
