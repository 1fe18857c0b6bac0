"""Converts PASCAL VOC 2012, its task of segmentation, to nnU-Net's raw format.

17 125 pictures, 2913 of them with 20 classes of objects; their contours and what is difficult are void. To get them,
download VOCtrainval_11-May-2012.tar from http://host.robots.ox.ac.uk/pascal/VOC/voc2012/.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nnunet_semcl.commands.convert_pictures import Labels, Picture, files_of, write_pictures
from nnunet_semcl.errors import InputError, first_names
from nnunet_semcl.files.raw_dataset import free_folder

CLASSES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
VOID = 255
UNLABELLED = "Unlabelled"
UNPACK_AGAIN = "Unpack VOCtrainval_11-May-2012.tar again."


def colour_map() -> np.ndarray:
    """Returns VOC's colour of each value, (256, 3) uint8.

    Source: the VOC development kit, VOClabelcolormap: bits 0, 1 and 2 of a value are the highest bits of red, green
    and blue, bits 3, 4 and 5 the second highest, and so on.
    """
    values = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        colours[:, bit % 3] |= ((values >> bit & 1) << (7 - bit // 3)).astype(np.uint8)
    return colours


def convert_voc(voc: Path, dataset_id: int) -> Path:
    """Writes VOC's pictures to nnUNet_raw/DatasetXXX_VOC2012. The folder appears only when it is complete.

    The published lists become fold 0. Pictures without a segmentation go to imagesUnlabelled.

    Args:
        voc: VOC's folder VOC2012 with JPEGImages, SegmentationClass and ImageSets/Segmentation, or VOCdevkit around it.
        dataset_id: 1 to 999, not used in nnUNet_raw.

    Returns:
        The folder of the data set.

    Raises:
        InputError: see `free_folder` and `write_pictures`; a folder or list is missing, a list is empty or names a file
            that does not exist, or a segmentation is in none of the lists, or in both.
    """
    folder = free_folder(dataset_id, "VOC2012")
    root = _find_root(voc)
    images, segmentations = files_of(root / "JPEGImages", ".jpg"), files_of(root / "SegmentationClass", ".png")
    fold = {side: _read_list(root, side, images, segmentations) for side in ("train", "val")}
    both = sorted({*fold["train"]} & {*fold["val"]})
    if both:
        raise InputError(
            f"{root / 'ImageSets' / 'Segmentation'}: train.txt and val.txt both name {first_names(both)}", UNPACK_AGAIN
        )
    left = sorted(segmentations.keys() - {*fold["train"], *fold["val"]})
    if left:
        raise InputError(
            f"{segmentations[left[0]]}: neither train.txt nor val.txt names it ({len(left)} segmentations)",
            "Add it to one of the lists, or move it away.",
        )
    labelled = {case: Picture(images[case], file) for case, file in segmentations.items()}
    unlabelled = {case: Picture(file) for case, file in images.items() if case not in segmentations}
    write_pictures(
        folder,
        {"Tr": labelled, **({UNLABELLED: unlabelled} if unlabelled else {})},
        Labels(CLASSES, VOID, colour_map()),
        [fold],
        dataset_name="VOC2012",
        description="PASCAL VOC 2012, segmentation: 20 classes, void is ignored",
        reference="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
    )
    print(
        f"Wrote {folder}: {len(labelled)} labelled and {len(unlabelled)} unlabelled pictures; in fold 0 "
        f"{len(fold['train'])} are for training and {len(fold['val'])} for validation, as published\n"
        f"Next: nnUNetv2_plan_and_preprocess -d {dataset_id} -c 2d"
    )
    if unlabelled:
        print(f"Then: nnunet-semcl unlabelled -d {dataset_id} -i {folder / f'images{UNLABELLED}'}")
    return folder


def _find_root(voc: Path) -> Path:
    for root in (voc, voc / "VOC2012", voc / "VOCdevkit" / "VOC2012"):
        if (root / "JPEGImages").is_dir() and (root / "SegmentationClass").is_dir():
            return root
    raise InputError(
        f"{voc}: there are no folders JPEGImages and SegmentationClass in it, nor in VOC2012 or VOCdevkit/VOC2012",
        "Give the path of VOC's folder VOC2012.",
    )


def _read_list(root: Path, side: str, images: dict[str, Path], segmentations: dict[str, Path]) -> list[str]:
    """The cases of a published list, each of which has an image and a segmentation."""
    file = root / "ImageSets" / "Segmentation" / f"{side}.txt"
    try:
        cases = list(dict.fromkeys(file.read_text().split()))
    except (OSError, ValueError) as problem:
        raise InputError(f"cannot read {file}: {getattr(problem, 'strerror', problem)}", UNPACK_AGAIN) from problem
    if not cases:
        raise InputError(f"{file} names no picture", UNPACK_AGAIN)
    for files, kind in ((images, "JPEGImages/{}.jpg"), (segmentations, "SegmentationClass/{}.png")):
        missing = [case for case in cases if case not in files]
        if missing:
            raise InputError(
                f"{file} names {first_names(missing)}, but {root / kind.format(missing[0])} does not exist",
                UNPACK_AGAIN,
            )
    return cases
