"""Objects with a single connected component: masks of unlabelled cases keep the largest one and drop the others.

nnU-Net decides this on validation cases (nnUNetv2_determine_postprocessing). Here the labelled training cases decide,
because masks of unlabelled cases are needed before any validation. Bai et al., CVPR 2023, arXiv 2305.00673, too drop
all but the largest component of pseudo-labels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from nnunetv2.postprocessing.remove_connected_components import remove_all_but_largest_component_from_segmentation

from nnunet_semcl.files.cases import Cases, Object

STRAY = 0.01  # share of an object's voxels that do not count as a second component: an annotator's stray clicks


def single_component_objects(cases: Cases, objects: Sequence[Object]) -> list[Object]:
    """Returns the objects that have a single component in every case, apart from stray voxels."""
    single_component = list(objects)
    for case in cases.identifiers:
        segmentation = cases.load_case(case)[1][0]
        single_component = [obj for obj in single_component if _has_single_component(segmentation, obj)]
    return single_component


def keep_largest_components(segmentation: np.ndarray, objects: Sequence[Object]) -> np.ndarray:
    """Returns a copy of a segmentation (X, Y, Z) in which each object keeps only its largest component.

    The other components become background.
    """
    for obj in objects:
        segmentation = remove_all_but_largest_component_from_segmentation(segmentation, obj)
    return segmentation


def _has_single_component(segmentation: np.ndarray, obj: Object) -> bool:
    volume = np.isin(segmentation, obj).sum()
    return np.isin(keep_largest_components(segmentation, [obj]), obj).sum() >= (1 - STRAY) * volume
