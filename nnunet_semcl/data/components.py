"""Objects that lie in one piece: what a coarse model finds of them elsewhere is taken away.

nnU-Net decides so on validation cases (nnUNetv2_determine_postprocessing); here the labelled training cases decide, as
masks of unlabelled ones are needed before any validation. Dropping all but the largest component of pseudo-labels is in
Bai et al., CVPR 2023, arXiv 2305.00673.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from nnunetv2.postprocessing.remove_connected_components import remove_all_but_largest_component_from_segmentation

from nnunet_semcl.files.cases import Cases, Object

STRAY = 0.01  # of an object's voxels: an annotator's stray clicks make no second piece


def single_component_objects(cases: Cases, objects: Sequence[Object]) -> list[Object]:
    """The objects whose largest component is all of them, but for stray voxels, in every case."""
    pieces = list(objects)
    for case in cases.identifiers:
        segmentation = cases.load_case(case)[1][0]
        pieces = [o for o in pieces if _is_one_piece(segmentation, o)]
    return pieces


def keep_largest_components(segmentation: np.ndarray, objects: Sequence[Object]) -> np.ndarray:
    """A copy of a segmentation (X, Y, Z) in which each object has but its largest component; the rest is background."""
    for o in objects:
        segmentation = remove_all_but_largest_component_from_segmentation(segmentation, o)
    return segmentation


def _is_one_piece(segmentation: np.ndarray, o: Object) -> bool:
    volume = np.isin(segmentation, o).sum()
    return np.isin(keep_largest_components(segmentation, [o]), o).sum() >= (1 - STRAY) * volume
