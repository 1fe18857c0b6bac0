"""A preprocessed case as nnU-Net saves it: image, segmentation, and the voxels of its objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import blosc2
import numpy as np

from nnunet_semcl.errors import InputError

Object = int | tuple[int, ...]  # a label, or a region: the labels that it unites
BACKGROUND: Object = 0
UNKNOWN = -1  # in segmentations: beyond the case, or not annotated
CENTRES_PER_CASE = 1000  # of the 10 000 that nnU-Net keeps an object and case: 12 kB each in memory


class Cases(Protocol):
    """What is read of a data set: nnU-Net's own, or PseudoLabelledCases."""

    source_folder: str
    identifiers: list[str]

    def load_case(self, identifier: str) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, dict]:
        """Image (C, X, Y, Z), segmentation (1, X, Y, Z), that of the previous stage (X, Y, Z), properties."""


def has_image(file: Path) -> bool:
    return any(file.with_name(f"{file.name}.{ending}").is_file() for ending in ("b2nd", "npz"))


def open_case(file: Path) -> blosc2.NDArray | np.ndarray:
    compressed = file.with_name(f"{file.name}.b2nd")
    if compressed.is_file():
        return blosc2.open(str(compressed), mode="r", dparams={"nthreads": 1})
    return np.load(file.with_name(f"{file.name}.npz"))["data"]


def class_locations(properties: Any, file: str) -> dict[Object, np.ndarray]:
    """Those in a case's properties, (n, 4) voxels of each object, the channel first.

    Raises:
        InputError: there are none; `file` is where the properties were read from.
    """
    locations = properties.get("class_locations") if isinstance(properties, dict) else None
    if not isinstance(locations, dict) or any(np.shape(v)[1:] not in ((), (4,)) for v in locations.values()):
        raise InputError(
            file,
            "no class_locations" if locations is None else "class_locations that are no voxels (channel, x, y, z)",
            "properties as nnU-Net 2.8 preprocesses them",
            "Preprocess the data set again: nnUNetv2_plan_and_preprocess -d DATASET_ID",
        )
    return locations


def labels_of(o: Object) -> tuple[int, ...]:
    return o if isinstance(o, tuple) else (o,)


def subsample(voxels: np.ndarray) -> np.ndarray:
    """At most CENTRES_PER_CASE of the positions, evenly, as int32."""
    return voxels[:: -(-len(voxels) // CENTRES_PER_CASE) or 1].astype(np.int32)
