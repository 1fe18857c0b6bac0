"""Sizes and components of objects in labelled cases: what masks of unlabelled cases are held to.

Of an object with a single connected component, masks keep the largest one and drop the others.

nnU-Net decides this on validation cases (nnUNetv2_determine_postprocessing). Here the labelled training cases decide,
because masks of unlabelled cases are needed before any validation. Bai et al., CVPR 2023, arXiv 2305.00673, too drop
all but the largest component of pseudo-labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from nnunetv2.postprocessing.remove_connected_components import remove_all_but_largest_component_from_segmentation
from scipy.ndimage import find_objects

from nnunet_semcl.files.cases import Cases, Object, labels_of

MOST_CASES = 20
STRAY = 0.01  # share of an object's voxels that do not count as a second component: an annotator's stray clicks


def examined_cases(cases: Cases) -> list[str]:
    """All cases, or at most MOST_CASES, evenly spaced: more would tell little more."""
    return cases.identifiers[:: -(-len(cases.identifiers) // MOST_CASES)]


def sizes_and_single_components(
    cases: Cases, objects: Sequence[Object]
) -> tuple[dict[Object, list[int]], list[Object]]:
    """Looks at the `examined_cases`, each object within its own box.

    Returns:
        Object -> its voxels in each of the cases that have it, and the objects that have a single component in every
        case, apart from stray voxels.
    """
    sizes: dict[Object, list[int]] = {obj: [] for obj in objects}
    single_component = list(objects)
    for case in examined_cases(cases):
        segmentation = cases.load_case(case)[1][0]
        for obj, cropped in _cropped(segmentation, objects):
            size = int(np.isin(cropped, labels_of(obj)).sum())
            sizes[obj].append(size)
            if obj in single_component and not _has_single_component(cropped, obj, size):
                single_component.remove(obj)
    return sizes, single_component


def keep_largest_components(segmentation: np.ndarray, objects: Sequence[Object]) -> np.ndarray:
    """Returns a copy of a segmentation (X, Y, Z) in which each object keeps only its largest component.

    The other components become background.
    """
    kept = segmentation.copy()
    for obj, cropped in _cropped(kept, objects):
        cropped[:] = remove_all_but_largest_component_from_segmentation(cropped, obj)
    return kept


def _cropped(segmentation: np.ndarray, objects: Sequence[Object]) -> Iterator[tuple[Object, np.ndarray]]:
    """Yields each object that occurs, with a view of the segmentation within the object's own box."""
    boxes = find_objects(np.maximum(segmentation, 0))  # of the labels 1, 2, ..., None for those without a voxel
    for obj in objects:
        own = [boxes[label - 1] for label in labels_of(obj) if 0 < label <= len(boxes) and boxes[label - 1]]
        if own:
            edges = [(min(s.start for s in axis), max(s.stop for s in axis)) for axis in zip(*own, strict=True)]
            yield obj, segmentation[tuple(slice(*edge) for edge in edges)]


def _has_single_component(segmentation: np.ndarray, obj: Object, size: int) -> bool:
    kept = np.isin(keep_largest_components(segmentation, [obj]), labels_of(obj)).sum()
    return bool(kept >= (1 - STRAY) * size)
