from __future__ import annotations

import numpy as np
import pytest

from nnunet_semcl.errors import InputError
from nnunet_semcl.files.cases import BACKGROUND, CENTRES_PER_CASE, UNKNOWN, Object, labels_of
from nnunet_semcl.methods.semcl.attention import BACKGROUND_DRAWS, Attention, occurring_objects


class Cases:
    """Cases in memory with the interface of nnU-Net's data sets."""

    source_folder = "preprocessed"

    def __init__(self, segmentations: dict[str, np.ndarray], objects: tuple[Object, ...] = (1, 2, (1, 2))) -> None:
        self.identifiers = list(segmentations)
        self.segmentations = segmentations
        self.objects = objects

    def load_case(self, case: str) -> tuple:
        segmentation = self.segmentations[case][None]
        locations = {obj: np.argwhere(np.isin(segmentation, obj)) for obj in self.objects}
        return (
            np.arange(segmentation.size).reshape(segmentation.shape),
            segmentation,
            None,
            {"class_locations": locations},
        )


def volume(**boxes: tuple[int, int]) -> np.ndarray:
    segmentation = np.zeros((6, 20, 20), np.int16)
    for name, (start, end) in boxes.items():
        segmentation[:, start:end] = int(name[1:])
    return segmentation


def test_centres_are_within_their_object_and_limited_in_number() -> None:
    cases = Cases({"a": volume(o1=(0, 10), o2=(10, 12)), "b": volume(o2=(3, 4))})
    attention = Attention(cases, [1, 2])
    assert set(attention.centres[1]) == {"a"}
    assert set(attention.centres[2]) == {"a", "b"}
    for obj, by_case in attention.centres.items():
        for case, centres in by_case.items():
            assert 0 < len(centres) <= CENTRES_PER_CASE
            assert (cases.segmentations[case][tuple(centres.T)] == obj).all()


def test_a_cut_has_image_and_segmentation_of_the_same_place() -> None:
    cases = Cases({"a": volume(o1=(0, 10), o2=(10, 12))})
    attention = Attention(cases, [1, 2])
    image, segmentation = attention.cut("a", [[-1, 2], [8, 14], [17, 25]])
    assert image.shape == segmentation.shape == (1, 3, 6, 8)
    assert image.dtype == np.float32
    assert segmentation.dtype == np.int16
    expected = np.full((3, 6, 8), UNKNOWN)
    expected[1:, :, :3] = np.array([1, 1, 2, 2, 0, 0])[:, None]
    assert (segmentation[0] == expected).all()
    assert image[0, 1, 0, 0] == 8 * 20 + 17
    assert not image[0, 0].any()
    assert not image[0, :, :, 3:].any()


def test_regions_are_objects() -> None:
    cases = Cases({"a": volume(o1=(0, 4), o2=(4, 6))})
    attention = Attention(cases, [(1, 2), 2])
    assert len(attention.centres[1, 2]["a"]) > len(attention.centres[2]["a"]) > 0
    assert labels_of((1, 2)) == (1, 2)
    assert labels_of(2) == (2,)


def test_the_background_is_contrasted_with_a_single_object() -> None:
    segmentation = volume(o1=(0, 4))
    segmentation[:, 15:] = -1  # cropped away by nnU-Net, so not background
    cases = Cases({"a": segmentation}, objects=(1,))
    centres = Attention(cases, [1, BACKGROUND]).centres[BACKGROUND]["a"]
    assert (segmentation[tuple(centres.T)] == 0).all()
    assert len(np.unique(centres, axis=0)) == len(centres) <= CENTRES_PER_CASE
    again = Attention(cases, [1, BACKGROUND]).centres[BACKGROUND]["a"]
    assert np.array_equal(centres, again)


def test_background_of_a_large_case_is_drawn_and_not_listed() -> None:
    cases = Cases({"a": np.zeros((100, 200, 200), np.int16)}, objects=())
    centres = Attention(cases, [BACKGROUND]).centres[BACKGROUND]["a"]
    assert CENTRES_PER_CASE / 2 < len(centres) <= CENTRES_PER_CASE < BACKGROUND_DRAWS < 100 * 200 * 200
    assert (centres.max(0) > [90, 180, 180]).all()  # anywhere
    assert (centres.min(0) < [10, 20, 20]).all()


def test_objects_that_do_not_occur_are_left_out() -> None:
    cases = Cases({"a": volume(o1=(0, 4)), "b": volume(o2=(0, 4))}, objects=(1, 2, 3))
    assert occurring_objects(cases, [1, 2, 3]) == [1, 2]


def test_no_object_at_all_and_no_class_locations_are_reported() -> None:
    message = (
        r"preprocessed: no voxel of any object in the 1 training cases of the fold, but at least one of \[1, 2\] must "
        r"occur\. Check the labels"
    )
    with pytest.raises(InputError, match=message):
        occurring_objects(Cases({"a": volume()}), [1, 2])
    cases = Cases({"a": volume(o1=(0, 4))})
    cases.load_case = lambda case: (None, None, None, {"spacing": 1})
    with pytest.raises(InputError, match=r"preprocessed/a\.pkl.* no class_locations.*nnUNetv2_plan_and_preprocess"):
        Attention(cases, [1])
