"""A preprocessed case as nnU-Net saves it: image, segmentation, and sampled voxels of each object."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import blosc2
import numpy as np

from nnunet_semcl.errors import InputError
from nnunet_semcl.files.advice import missing_case, preprocess_again

Object = int | tuple[int, ...]  # a label, or a region: the labels that it unites
BACKGROUND: Object = 0
UNKNOWN = -1  # in segmentations: outside the case, or not annotated
CENTRES_PER_CASE = 1000  # per object, of nnU-Net's 10 000: 12 kB in memory


class Voxels(Protocol):
    """An array, or what computes one when a box of it is read."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, box: Any, /) -> np.ndarray: ...


class Cases(Protocol):
    """The part of a data set that we read: nnU-Net's own class has it, and PseudoLabelledCases too."""

    source_folder: str
    identifiers: list[str]

    def load_case(self, identifier: str) -> tuple[np.ndarray, Voxels, np.ndarray | None, dict]:
        """Loads one case.

        Returns:
            Image (C, X, Y, Z), segmentation (1, X, Y, Z), the previous stage's segmentation (X, Y, Z) or None, and
            properties.
        """


def has_image(file: Path) -> bool:
    """Whether the case's image exists. `file` has no extension."""
    return any(file.with_name(f"{file.name}.{ending}").is_file() for ending in ("b2nd", "npz"))


def open_case(file: Path) -> blosc2.NDArray | np.ndarray:
    """Opens the case's image (C, X, Y, Z). `file` has no extension.

    Of an older nnU-Net's compressed case it takes what nnU-Net has unpacked beside it: the archive is read as a whole.
    """
    compressed = file.with_name(f"{file.name}.b2nd")
    if compressed.is_file():
        return blosc2.open(str(compressed), mode="r", dparams={"nthreads": 1})
    unpacked = file.with_name(f"{file.name}.npy")
    if unpacked.is_file():
        return np.load(unpacked, mmap_mode="r")
    return np.load(file.with_name(f"{file.name}.npz"))["data"]


def class_locations(properties: object, file: str) -> dict[Object, np.ndarray]:
    """The sampled voxels of each object, (n, 4) with the channel first, from a case's properties.

    Args:
        properties: content of the file.
        file: name of that file, for errors.

    Raises:
        InputError: `class_locations` is missing or does not contain voxels.
    """
    locations = properties.get("class_locations") if isinstance(properties, dict) else None
    fix = f"nnU-Net 2.8 adds them. To preprocess the cases again, {preprocess_again(Path(file).parent)}"
    if locations is None:
        raise InputError(f"{file} has no class_locations", fix)
    if not isinstance(locations, dict) or any(np.shape(v)[1:] not in ((), (4,)) for v in locations.values()):
        raise InputError(f"{file}: class_locations are not voxels (channel, x, y, z)", fix)
    return locations


def labels_of(obj: Object) -> tuple[int, ...]:
    """The labels that make up an object."""
    return obj if isinstance(obj, tuple) else (obj,)


def subsample(voxels: np.ndarray) -> np.ndarray:
    """At most CENTRES_PER_CASE of the positions, evenly spaced in the list."""
    return voxels[:: -(-len(voxels) // CENTRES_PER_CASE) or 1]


def check_images(images: dict[str, Path], kind: str) -> None:
    """Checks that cases have a preprocessed image.

    Args:
        images: case -> image file without extension.
        kind: of the cases, for the error.

    Raises:
        InputError: an image is missing.
    """
    missing = [case for case, image in images.items() if not has_image(image)]
    if missing:
        raise InputError(
            f"{images[missing[0]]}: no preprocessed image ({len(missing)} of {len(images)} {kind} cases have none)",
            missing_case(images[missing[0]].parent),
        )
