"""Small stand-ins for VOC 2012 and CamVid, in the folders and formats of the originals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from nnunet_semcl.commands.convert_voc import VOID, colour_map

VOC_TRAIN = [f"2007_{number:06d}" for number in range(4)]
VOC_VAL = [f"2008_{number:06d}" for number in range(2)]
VOC_UNLABELLED = ["2009_000001", "2009_000002"]


def scene(seed: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A picture (Y, X, 3) of rectangles of the classes 1 and 15, and its labels (Y, X) with void contours."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(size, np.uint8)
    for value, left in ((1, 0), (15, size[1] // 2)):
        y, x = rng.integers(2, size[0] // 3), left + rng.integers(2, size[1] // 8)
        labels[y - 1 : y + size[0] // 2 + 1, x - 1 : x + size[1] // 3 + 1] = VOID
        labels[y : y + size[0] // 2, x : x + size[1] // 3] = value
    colours = {0: (40, 90, 40), 1: (200, 60, 60), 15: (70, 70, 220), VOID: (120, 80, 90)}
    image = np.array([[colours[int(value)] for value in row] for row in labels])
    return np.clip(image + rng.normal(0, 12, image.shape), 0, 255).astype(np.uint8), labels


def save_voc_labels(values: np.ndarray, file: Path, colours: np.ndarray | None = None) -> None:
    picture = Image.fromarray(values).convert("P")
    picture.putdata(values.flatten().tolist())
    picture.putpalette((colour_map() if colours is None else colours).flatten().tolist())
    picture.save(file)


def write_voc(root: Path) -> Path:
    """VOC2012 with four pictures for training, two for validation, and two without a segmentation."""
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for number, case in enumerate((*VOC_TRAIN, *VOC_VAL, *VOC_UNLABELLED)):
        image, labels = scene(number, (64, 80 + 8 * (number % 2)))
        Image.fromarray(image).save(root / "JPEGImages" / f"{case}.jpg")
        if case not in VOC_UNLABELLED:
            save_voc_labels(labels, root / "SegmentationClass" / f"{case}.png")
    for side, cases in (("train", VOC_TRAIN), ("val", VOC_VAL)):
        (root / "ImageSets" / "Segmentation" / f"{side}.txt").write_text("".join(f"{case}\n" for case in cases))
    return root


def write_camvid(root: Path) -> Path:
    """SegNet's folder with three pictures for training, two for validation and one for testing."""
    number = 0
    for side, count in (("train", 3), ("val", 2), ("test", 1)):
        for folder in (side, f"{side}annot"):
            (root / folder).mkdir(parents=True)
        for _ in range(count):
            image, labels = scene(number, (36, 48))
            labels[labels == 15], labels[labels == VOID] = 8, 11
            Image.fromarray(image).save(root / side / f"0001TP_{number:06d}.png")
            Image.fromarray(labels).save(root / f"{side}annot" / f"0001TP_{number:06d}.png")
            number += 1
    return root
