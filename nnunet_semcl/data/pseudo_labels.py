"""Pseudo-labels of unlabelled cases: a coarse model's segmentations, and how far they may be believed."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_semcl.data.components import keep_largest_components
from nnunet_semcl.data.lazy_segmentation import FULL, LazySegmentation
from nnunet_semcl.errors import first_names
from nnunet_semcl.files.atomic import atomic_write
from nnunet_semcl.files.cases import UNKNOWN, Object, labels_of, open_case, subsample

FEWEST_VOXELS = 50  # as in the paper: an object with fewer confident voxels counts as not found
FEWEST_OF_SIZE = 0.1  # as does one with less than this share of its size in labelled cases
ENOUGH_OF_SIZE = 0.5  # but not with more than this: on a coarse grid an organ may have 40 voxels
AGREEMENT = 0.7  # Dice of two predictions of an object below which neither is believed
SLICES = 16  # whose probabilities are in memory at a time


@dataclass(frozen=True)
class Trust:
    """What is believed of a coarse model's predictions.

    Attributes:
        labels: nnU-Net's label manager, with the ignore label that marks what a segmentation does not know.
        least: labels or regions that occur in the labelled cases -> confident voxels with which one counts as found.
        single_component: objects of which only the largest component is believed.
        masks_background: whether nnU-Net sets images to 0 outside the body.
    """

    labels: LabelManager
    least: Mapping[Object, int]
    single_component: Sequence[Object] = ()
    masks_background: bool = False


@dataclass(frozen=True)
class Prediction:
    """A model's segmentation of a case.

    Attributes:
        segmentation: (X, Y, Z) int16.
        confidence: (X, Y, Z) uint8, the probability of a voxel's label in steps of 1/FULL; with regions, of the least
            certain region.
    """

    segmentation: np.ndarray
    confidence: np.ndarray

    @classmethod
    def from_logits(cls, logits: torch.Tensor, labels: LabelManager) -> Prediction:
        """Computes it from a network's output (heads, X, Y, Z), on its device, a few slices at a time."""
        segmentation, confidence = [], []
        for part in logits.split(SLICES, dim=1):
            probabilities = labels.apply_inference_nonlin(part)
            if labels.has_regions:
                found = labels.convert_probabilities_to_segmentation(probabilities)
                certain = torch.maximum(probabilities, 1 - probabilities).amin(0)
            else:  # nnU-Net's function wants these on the CPU
                certain, found = probabilities.max(0)
            segmentation.append(found.short().cpu())
            confidence.append((certain * FULL).round().byte().cpu())
        return cls(torch.cat(segmentation).numpy(), torch.cat(confidence).numpy())


class PseudoLabelledCases:
    """Unlabelled cases with a coarse model's segmentations in place of labels, as a data set for nnU-Net's loader.

    A segmentation says nothing where the model is not confident. An object with too few confident voxels in a case is
    missing there: these voxels say nothing either, and background has the label `maybe_background`, since it may be
    that object.

    Args:
        images: case -> its preprocessed image without extension. If the same folder holds a label file or properties,
            they are never opened.
        folder: where `save_pseudo_labels` wrote the predictions.
        trust: as they were saved with.

    Attributes:
        identifiers: the cases in which the model is confident of at least one object.
        missing: case -> the objects that were not found in it.
        skipped: object -> number of cases in which it was not found.
        supervised_share: of the voxels in these cases, the share that is not ignored.
    """

    def __init__(self, images: dict[str, Path], folder: Path, trust: Trust) -> None:
        self.images = images
        self.source_folder = str(folder)
        self.trust = trust
        self.skipped: Counter[Object] = Counter()
        self.missing: dict[str, list[Object]] = {}
        self._properties: dict[str, dict[str, Any]] = {}
        for case in images:
            properties = pickle.loads(_properties_file(folder / case).read_bytes())
            self.skipped.update(properties["missing"])
            if len(properties["missing"]) < len(trust.least):
                # Otherwise a model that finds nothing would teach that the image is empty.
                self._properties[case], self.missing[case] = properties, properties["missing"]
        self.identifiers = list(self._properties)
        supervised, voxels = (sum(each[key] for each in self._properties.values()) for key in ("supervised", "voxels"))
        self.supervised_share = supervised / max(1, voxels)

    def load_case(self, identifier: str) -> tuple[blosc2.NDArray | np.ndarray, LazySegmentation, None, dict]:
        image, file, missing = self.images[identifier], Path(self.source_folder, identifier), self.missing[identifier]
        segmentation = _segmentation(image, file, self.trust, missing)
        return segmentation.image, segmentation, None, self._properties[identifier]

    def report(self) -> Iterator[str]:
        """Yields sentences on what was found, for the log."""
        folder = Path(self.source_folder).name
        for obj, count in self.skipped.items():
            yield (
                f"Object {obj}: too few confident voxels in {count} of {len(self.images)} predictions (fewer than "
                f"{self.trust.least[obj]})"
            )
        left_out = [case for case in self.images if case not in self.missing]
        if left_out:
            yield (
                f"Left out of {folder}, since no object was found: {len(left_out)} of {len(self.images)} cases "
                f"({first_names(left_out)})"
            )
        incomplete = sum(map(bool, self.missing.values()))
        yield (
            f"Pseudo-labels in {folder}: {self.supervised_share:.0%} of voxels supervise. In {incomplete} of "
            f"{len(self.identifiers)} cases objects are missing, and background may be one of them."
        )


def least_voxels(sizes: Sequence[int]) -> int:
    """Returns the number of confident voxels with which an object counts as found, by its sizes in labelled cases."""
    if not sizes:
        return FEWEST_VOXELS
    size = float(np.median(sizes))
    return max(1, round(min(max(FEWEST_VOXELS, FEWEST_OF_SIZE * size), ENOUGH_OF_SIZE * size)))


def _labels_of_all(objects: Sequence[Object]) -> list[int]:
    return [label for obj in objects for label in labels_of(obj)]


def maybe_background(labels: LabelManager) -> int:
    """Returns the label of voxels that are background, or an object that was not found in the case."""
    return int(labels.ignore_label) + 1


def is_saved(file: Path) -> bool:
    """Whether a case's pseudo-labels are complete. `file` has no extension."""
    return _properties_file(file).is_file()


def save_pseudo_labels(
    prediction: Prediction, file: Path, image: Path, trust: Trust, second: np.ndarray | None = None
) -> None:
    """Saves a case's pseudo-labels.

    These are the segmentation (1, X, Y, Z) int16 as `file`_seg.b2nd, its confidence uint8 as `file`.b2nd, and what is
    found where as `file`.pkl: nobody has to read the other two to know it. A confidence becomes 0 in an object on which
    a second prediction disagrees (Dice below AGREEMENT), and where an object has lost a smaller component, which
    becomes background: the largest one may be the wrong one.

    Args:
        prediction: of the model.
        file: path without extension.
        image: the case's preprocessed image without extension. A label file beside it is never opened.
        trust: what is believed of the prediction.
        second: the segmentation of a second prediction, (X, Y, Z).

    Raises:
        InputError: the files cannot be written.
    """
    labels = trust.labels
    confidence = prediction.confidence.copy()
    cleaned = keep_largest_components(prediction.segmentation, trust.single_component)
    confidence[cleaned != prediction.segmentation] = 0
    if second is not None:
        for obj in labels.foreground_regions if labels.has_regions else labels.foreground_labels:
            here, there = (np.isin(each, labels_of(obj)) for each in (prediction.segmentation, second))
            if 2 * np.count_nonzero(here & there) < AGREEMENT * (np.count_nonzero(here) + np.count_nonzero(there)):
                confidence[here] = 0
    for array, target in ((cleaned, _segmentation_file(file)), (confidence, file)):
        with atomic_write(target.with_name(f"{target.name}.b2nd")) as temporary:
            temporary.unlink(missing_ok=True)  # blosc2 does not overwrite a file
            # One thread, as in nnU-Net's workers: several processes do this side by side.
            blosc2.asarray(array[None], urlpath=str(temporary), cparams={"nthreads": 1}, dparams={"nthreads": 1})
    with atomic_write(_properties_file(file)) as temporary:
        temporary.write_bytes(pickle.dumps(_found(image, file, trust)))


def _found(image: Path, file: Path, trust: Trust) -> dict[str, Any]:
    """A case's properties, as nnU-Net has them: where the objects are; and which are missing, how much supervises."""
    known = _segmentation(image, file, trust)[:]
    known[known == trust.labels.ignore_label] = UNKNOWN
    locations: dict[Object, np.ndarray] = {}
    missing = []
    for obj, least in trust.least.items():
        voxels, number = _sampled(np.isin(known, labels_of(obj)))
        if number >= least:
            locations[obj] = voxels
        else:
            missing.append(obj)
    known[np.isin(known, _labels_of_all(missing))] = UNKNOWN
    annotated = (-1, *trust.labels.all_labels)  # nnU-Net's key for annotated voxels
    locations[annotated], supervised = _sampled(known != UNKNOWN)
    return {"class_locations": locations, "missing": missing, "supervised": supervised, "voxels": known.size}


def _sampled(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Some voxels of a mask (1, X, Y, Z) as nnU-Net's class locations (n, 4), and the number of all."""
    voxels = np.flatnonzero(mask)  # a third of the memory of argwhere
    return np.stack(np.unravel_index(subsample(voxels), mask.shape), 1).astype(np.int32), len(voxels)


def _segmentation(image: Path, file: Path, trust: Trust, missing: Sequence[Object] = ()) -> LazySegmentation:
    labels = trust.labels
    return LazySegmentation(
        open_case(image),
        open_case(_segmentation_file(file)),
        open_case(file),
        labels.ignore_label,
        _labels_of_all(missing),
        maybe_background(labels) if missing else 0,
        trust.masks_background,
    )


def _segmentation_file(case: Path) -> Path:
    return case.with_name(f"{case.name}_seg")


def _properties_file(case: Path) -> Path:
    return case.with_name(f"{case.name}.pkl")
