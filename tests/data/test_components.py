from __future__ import annotations

import numpy as np

from nnunet_semcl.data.components import MOST_CASES, keep_largest_components, sizes_and_single_components

FOREGROUND = (1, 2)


class Segmentations:
    """Cases that have only a segmentation (X, Y, Z)."""

    source_folder = "segmentations"

    def __init__(self, *segmentations: np.ndarray) -> None:
        self.segmentations = dict(enumerate(segmentations))
        self.identifiers = list(self.segmentations)

    def load_case(self, identifier: int) -> tuple:
        return None, self.segmentations[identifier][None], None, {}


def segmentation(*boxes: tuple[int, int, int]) -> np.ndarray:
    """Background, except for slabs [start, end) of a label."""
    result = np.zeros((20, 4, 4), np.int16)
    for label, start, end in boxes:
        result[start:end] = label
    return result


def single_component_objects(*arguments: object) -> list:
    return sizes_and_single_components(*arguments)[1]


def test_sizes_are_those_of_the_cases_that_have_the_object() -> None:
    cases = Segmentations(
        segmentation((1, 0, 3), (2, 3, 6)), segmentation((1, 0, 2), (1, 9, 10)), segmentation((2, 1, 2))
    )
    sizes, _ = sizes_and_single_components(cases, [FOREGROUND, 1, 2, 3])
    assert sizes == {FOREGROUND: [96, 48, 16], 1: [48, 48], 2: [48, 16], 3: []}


def test_not_all_of_many_cases_are_read() -> None:
    cases = Segmentations(*[segmentation((1, 0, 3))] * 95)
    assert len(sizes_and_single_components(cases, [1])[0][1]) == 19 <= MOST_CASES


def test_an_object_with_two_components_in_any_case_is_left_out() -> None:
    single, split = segmentation((1, 0, 3), (2, 3, 6)), segmentation((1, 0, 3), (2, 3, 6), (2, 8, 9))
    assert single_component_objects(Segmentations(single), [FOREGROUND, 1, 2]) == [FOREGROUND, 1, 2]
    assert single_component_objects(Segmentations(single, split), [FOREGROUND, 1, 2]) == [1]
    assert single_component_objects(Segmentations(split, single), [2]) == []


def test_a_stray_voxel_is_no_second_component() -> None:
    stray = segmentation((1, 0, 10))
    stray[15, 0, 0] = 1
    assert single_component_objects(Segmentations(stray), [1]) == [1]


def test_only_the_largest_component_is_kept() -> None:
    found = segmentation((1, 0, 3), (2, 3, 6), (1, 8, 10), (2, 12, 20))
    found[6] = -1  # not annotated
    kept = keep_largest_components(found, [1])
    assert (kept[8:10] == 0).all()
    kept[8:10] = 1
    np.testing.assert_array_equal(kept, found)
    assert np.unique(keep_largest_components(found, [FOREGROUND])).tolist() == [-1, 0, 2]
    np.testing.assert_array_equal(keep_largest_components(found, []), found)
