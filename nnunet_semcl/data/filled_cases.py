"""Labelled cases of which nobody annotated some voxels: pseudo-labels fill these in where the model is sure.

What was drawn never changes, and nothing of nnU-Net's preprocessed data is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.configuration import default_num_processes

from nnunet_semcl.data.pseudo_labels import PseudoLabelledCases
from nnunet_semcl.files.cases import Cases, Object, Voxels, subsample
from nnunet_semcl.files.intact_cases import read_segmentation


def ignored_shares(cases: Mapping[str, Path], ignore_label: int) -> dict[str, float]:
    """Reads the segmentation of each case, and returns case -> share of ignored voxels, for cases that hold any.

    Args:
        cases: case -> its file without extension.
        ignore_label: of the data set.

    Raises:
        InputError: a segmentation cannot be read.
    """

    def share(file: Path) -> float:
        return float(np.mean(read_segmentation(file) == ignore_label))

    with ThreadPoolExecutor(default_num_processes) as pool:  # decompressing is not Python's work
        shares = dict(zip(cases, pool.map(share, cases.values()), strict=True))
    return {case: of_case for case, of_case in shares.items() if of_case}


class FilledSegmentation:
    """A segmentation whose ignored voxels carry another one's labels.

    Args:
        drawn: labels (1, X, Y, Z), of which `ignore_label` marks what nobody annotated.
        predicted: pseudo-labels of the same shape, with the ignore label where they are not sure.
        ignore_label: of both.
    """

    def __init__(self, drawn: Voxels, predicted: Voxels, ignore_label: int) -> None:
        self.drawn, self.predicted, self.ignore_label = drawn, predicted, ignore_label
        self.shape, self.ndim = drawn.shape, len(drawn.shape)
        self.dtype = np.dtype(np.int16)

    def __getitem__(self, box: Any) -> np.ndarray:
        """Returns the labels in a box, as int16."""
        labels = np.array(self.drawn[box], np.int16)
        ignored = labels == self.ignore_label
        if ignored.any():
            labels[ignored] = self.predicted[box][ignored]
        return labels


class FilledCases:
    """Labelled cases, some of them with pseudo-labels at ignored voxels, as a data set for nnU-Net's loader.

    Args:
        labelled: nnU-Net's own data set.
        predicted: pseudo-labels of those of its cases that hold ignored voxels; a case in which no object was found is
            not filled.
        ignore_label: of the data set.

    Attributes:
        identifiers: all labelled cases.
        missing: case -> the objects that were not found in it; filled background may be one of them.
        filled_share: of the ignored voxels, the share that supervises now.
    """

    def __init__(self, labelled: Cases, predicted: PseudoLabelledCases, ignore_label: int) -> None:
        self.labelled, self.predicted, self.ignore_label = labelled, predicted, ignore_label
        self.identifiers, self.source_folder = labelled.identifiers, labelled.source_folder
        self.missing = predicted.missing
        self._locations: dict[str, dict[Object, np.ndarray]] = {}
        filled = ignored = 0
        for case in predicted.images:
            _, drawn, _, properties = labelled.load_case(case)
            there = drawn[:] == ignore_label
            ignored += int(np.count_nonzero(there))
            if case in predicted.missing:  # otherwise no object was found in it
                _, labels, _, found = predicted.load_case(case)
                filled += int(np.count_nonzero(labels[:][there] != ignore_label))
                self._locations[case] = _with_filled(properties, found, there)
        self.filled_share = filled / max(1, ignored)

    def load_case(self, identifier: str) -> tuple[np.ndarray, Voxels, np.ndarray | None, dict]:
        image, drawn, previous, properties = self.labelled.load_case(identifier)
        if identifier not in self._locations:
            return image, drawn, previous, properties
        segmentation = FilledSegmentation(drawn, self.predicted.load_case(identifier)[1], self.ignore_label)
        return image, segmentation, previous, {**properties, "class_locations": self._locations[identifier]}


def _with_filled(drawn: dict[str, Any], predicted: dict[str, Any], ignored: np.ndarray) -> dict[Object, np.ndarray]:
    """Class locations of a filled case: without new ones no patch would lie in a slice that nobody annotated.

    Those of pseudo-labels are sampled over the whole case; of those that were drawn as many are taken.
    """
    locations = dict(drawn["class_locations"])
    for obj, voxels in predicted["class_locations"].items():
        own = subsample(np.reshape(locations.get(obj, ()), (-1, 4)).astype(int))
        locations[obj] = np.concatenate((own, voxels[ignored[tuple(voxels.T)]]))
    return locations
