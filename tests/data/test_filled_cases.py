"""Pseudo-labels at ignored voxels of labelled cases: drawn voxels keep their labels, sure ones get the prediction."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import blosc2
import numpy as np
import pytest
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_semcl.data.filled_cases import FilledCases, ignored_shares
from nnunet_semcl.data.pseudo_labels import (
    Prediction,
    PseudoLabelledCases,
    Trust,
    maybe_background,
    save_pseudo_labels,
)
from nnunet_semcl.errors import InputError

IGNORED = 3
LABELS = LabelManager({"background": 0, "a": 1, "b": 2, "ignore": IGNORED}, None)
MAYBE = maybe_background(LABELS)
ANNOTATED = (-1, 0, 1, 2)
SHAPE = (4, 12, 10)
HALF = np.s_[:, :, :6]  # rows that nobody annotated


@pytest.fixture
def drawn() -> np.ndarray:
    labels = np.random.default_rng(0).integers(0, 3, (1, *SHAPE), np.int16)
    labels[HALF] = IGNORED
    return labels


def filled(folder: Path, drawn: np.ndarray, predicted: np.ndarray, confidence: np.ndarray) -> FilledCases:
    """Of two cases, x with this prediction, and y, which is annotated completely."""
    blosc2.asarray(np.ones((1, *SHAPE), np.float32), urlpath=str(folder / "image_x.b2nd"))
    trust = Trust(LABELS, {1: 5, 2: 5})
    save_pseudo_labels(Prediction(predicted, confidence), folder / "x", folder / "image_x", trust)
    segmentations = {"x": drawn, "y": np.where(drawn == IGNORED, 0, drawn)}
    located = {value: np.argwhere(drawn == value) for value in (0, 1, 2)}
    locations = {ANNOTATED: np.argwhere(drawn != IGNORED), 1: located[1], 2: located[2]}
    labelled = SimpleNamespace(
        identifiers=["x", "y"],
        source_folder="labelled",
        load_case=lambda case: (
            np.ones((1, *SHAPE), np.float32),
            blosc2.asarray(segmentations[case]),
            None,
            {"class_locations": locations, "spacing": 1},
        ),
    )
    return FilledCases(labelled, PseudoLabelledCases({"x": folder / "image_x"}, folder, trust), IGNORED)


def prediction() -> tuple[np.ndarray, np.ndarray]:
    """Background, a in four rows, b in the next ones; sure everywhere."""
    labels = np.zeros(SHAPE, np.int16)
    labels[:, 1:5], labels[:, 5:9] = 1, 2
    return labels, np.full(SHAPE, 255, np.uint8)


def test_all_that_is_ignored_carries_a_sure_prediction(tmp_path: Path, drawn: np.ndarray) -> None:
    predicted, sure = prediction()
    cases = filled(tmp_path, drawn, predicted, sure)
    image, segmentation, previous, properties = cases.load_case("x")
    labels = segmentation[:]
    assert np.array_equal(labels, np.where(drawn == IGNORED, predicted, drawn))
    assert labels.dtype == segmentation.dtype == np.int16
    assert segmentation.shape == drawn.shape
    assert cases.filled_share == 1
    assert previous is None
    assert properties["spacing"] == 1
    box = [[-1, 3], [2, 8], [4, 12]]
    expected = crop_and_pad_nd(labels, box, -1)
    assert np.array_equal(crop_and_pad_nd(segmentation, box, -1), expected)
    assert image.shape == (1, *SHAPE)


def test_where_it_is_unsure_it_stays_ignored(tmp_path: Path, drawn: np.ndarray) -> None:
    predicted, confidence = prediction()
    confidence[:2] = 200
    cases = filled(tmp_path, drawn, predicted, confidence)
    labels = cases.load_case("x")[1][:]
    assert np.array_equal(labels[drawn != IGNORED], drawn[drawn != IGNORED])
    assert (labels[0, :2, :6] == IGNORED).all()
    assert np.array_equal(labels[0, 2:, :6], predicted[2:, :6])
    assert cases.filled_share == 0.5


def test_filled_background_may_be_an_object_that_was_not_found(tmp_path: Path, drawn: np.ndarray) -> None:
    predicted, sure = prediction()
    predicted[predicted == 2] = 0
    cases = filled(tmp_path, drawn, predicted, sure)
    assert cases.missing == {"x": [2]}
    labels = cases.load_case("x")[1][:]
    assert np.array_equal(labels[HALF][0], np.where(predicted[:, :6] == 0, MAYBE, predicted[:, :6]))
    assert np.array_equal(labels[:, :, 6:], drawn[:, :, 6:])  # with its background, and with b


def test_patches_are_centred_at_what_was_drawn_and_at_what_was_filled(tmp_path: Path, drawn: np.ndarray) -> None:
    cases = filled(tmp_path, drawn, *prediction())
    _, segmentation, _, properties = cases.load_case("x")
    labels, locations = segmentation[:], properties["class_locations"]
    for obj in (1, 2):
        values = labels[tuple(locations[obj].T)]
        assert (values == obj).all()
    known = locations[ANNOTATED]
    assert (labels[tuple(known.T)] != IGNORED).all()
    share_filled = np.mean(drawn[tuple(known.T)] == IGNORED)
    assert 0.3 < share_filled < 0.7


def test_without_a_found_object_a_case_stays_as_it_is(tmp_path: Path, drawn: np.ndarray) -> None:
    cases = filled(tmp_path, drawn, np.zeros(SHAPE, np.int16), np.full(SHAPE, 255, np.uint8))
    assert cases.identifiers == ["x", "y"]
    assert cases.filled_share == 0
    assert np.array_equal(cases.load_case("x")[1][:], drawn)
    assert set(cases.load_case("x")[3]["class_locations"]) == {ANNOTATED, 1, 2}
    assert np.array_equal(cases.load_case("y")[1][:], np.where(drawn == IGNORED, 0, drawn))


def test_shares_of_ignored_voxels(tmp_path: Path, drawn: np.ndarray) -> None:
    blosc2.asarray(drawn, urlpath=str(tmp_path / "x_seg.b2nd"))
    blosc2.asarray(np.where(drawn == IGNORED, 0, drawn), urlpath=str(tmp_path / "y_seg.b2nd"))
    np.savez_compressed(
        tmp_path / "z.npz", data=np.ones(SHAPE), seg=np.full((1, *SHAPE), IGNORED)
    )  # of an older nnU-Net
    files = {case: tmp_path / case for case in "xyz"}
    assert ignored_shares(files, IGNORED) == {"x": 0.5, "z": 1.0}
    (tmp_path / "y_seg.b2nd").write_bytes(b"garbage")
    with pytest.raises(InputError, match=r"y_seg.b2nd cannot be read"):
        ignored_shares(files, IGNORED)
