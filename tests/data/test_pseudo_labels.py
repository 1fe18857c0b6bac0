from __future__ import annotations

from pathlib import Path

import blosc2
import numpy as np
import pytest
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_semcl.data.pseudo_labels import (
    AGREEMENT,
    FEWEST_VOXELS,
    SLICES,
    Prediction,
    PseudoLabelledCases,
    Trust,
    is_saved,
    least_voxels,
    maybe_background,
    save_pseudo_labels,
)
from nnunet_semcl.errors import InputError

IGNORED = 3
LABELS = LabelManager({"background": 0, "a": 1, "b": 2, "ignore": IGNORED}, None)
REGIONS = LabelManager({"background": 0, "whole": (1, 2), "core": 2, "ignore": IGNORED}, (1, 2))
MAYBE = maybe_background(LABELS)
ANNOTATED = (-1, 0, 1, 2)  # nnU-Net's key for voxels that are annotated
SHAPE = (3, 12, 12)


def one_hot(*boxes: tuple[int, int, float]) -> np.ndarray:
    """Background, except for rows [start, end) of class 1, 2, ... with the given probability."""
    probabilities = np.zeros((len(boxes) + 1, *SHAPE), np.float32)
    for head, (start, end, probability) in enumerate(boxes, start=1):
        probabilities[head, :, start:end] = probability
    probabilities[0] = 1 - probabilities.sum(0)
    return probabilities


def save(probabilities: np.ndarray, file: Path, trust: Trust, second: np.ndarray | None = None) -> None:
    image = file.with_name(f"image_{file.name}")
    if not image.with_suffix(".b2nd").exists():
        blosc2.asarray(np.ones((1, *SHAPE), np.float32), urlpath=str(image.with_suffix(".b2nd")))
    there = None if second is None else predicted(second, trust.labels).segmentation
    save_pseudo_labels(predicted(probabilities, trust.labels), file, image, trust, there)


def predicted(probabilities: np.ndarray, labels: LabelManager) -> Prediction:
    """As a network says it: with the logits of these probabilities."""
    p = torch.from_numpy(probabilities).double()
    return Prediction.from_logits(p.logit() if labels.has_regions else p.log(), labels)


def pseudo_labelled(folder: Path, labels: LabelManager, objects: list, **cases: np.ndarray) -> PseudoLabelledCases:
    trust = Trust(labels, dict.fromkeys(objects, FEWEST_VOXELS))
    for case, probabilities in cases.items():
        save(probabilities, folder / case, trust)
    return PseudoLabelledCases({case: folder / f"image_{case}" for case in cases}, folder, trust)


def rows(segmentation: np.ndarray) -> list[int]:
    """The label of each row, the same in all slices and columns."""
    assert (segmentation == segmentation[:, :1, :, :1]).all()
    return segmentation[0, 0, :, 0].tolist()


def test_the_most_probable_label_is_used_and_confident_voxels_are_located(tmp_path: Path) -> None:
    cases = pseudo_labelled(tmp_path, LABELS, [1], x=one_hot((0, 4, 1.0), (6, 10, 0.8)))
    assert not cases.skipped
    assert cases.missing == {"x": []}
    image, segmentation, previous, properties = cases.load_case("x")
    assert image.shape == segmentation.shape == (1, *SHAPE)
    assert segmentation.dtype == np.int16
    assert previous is None
    assert rows(segmentation[:]) == [1] * 4 + [0] * 2 + [IGNORED] * 4 + [0] * 2  # 0.8 is not confident
    assert cases.supervised_share == pytest.approx(8 / 12)
    locations = properties["class_locations"]
    assert set(locations) == {1, ANNOTATED}
    assert locations[1].shape == (3 * 4 * 12, 4)
    assert (segmentation[:][tuple(locations[1].T)] == 1).all()
    assert set(segmentation[:][tuple(locations[ANNOTATED].T)]) == {0, 1}


def test_background_has_to_be_surer_than_an_object(tmp_path: Path) -> None:
    sure, unsure = one_hot((0, 4, 0.95), (6, 10, 0.005)), one_hot((0, 4, 0.95), (6, 10, 0.05))
    cases = pseudo_labelled(tmp_path, LABELS, [1], x=sure, y=unsure)
    assert rows(cases.load_case("x")[1][:]) == [1] * 4 + [0] * 8
    assert rows(cases.load_case("y")[1][:]) == [1] * 4 + [0] * 2 + [IGNORED] * 4 + [0] * 2
    regions = pseudo_labelled(tmp_path, REGIONS, [(1, 2)], z=one_hot((0, 4, 0.95), (6, 10, 0.05))[1:])
    assert rows(regions.load_case("z")[1][:]) == [1] * 4 + [0] * 2 + [IGNORED] * 4 + [0] * 2


def test_where_an_object_was_not_found_background_may_be_that_object(tmp_path: Path) -> None:
    both, one = one_hot((0, 4, 1.0), (6, 10, 1.0)), one_hot((0, 4, 1.0), (6, 10, 0.8))
    cases = pseudo_labelled(tmp_path, LABELS, [1, 2], x=both, y=one)
    assert cases.skipped == {2: 1}
    assert cases.missing == {"x": [], "y": [2]}
    assert rows(cases.load_case("x")[1][:]) == [1] * 4 + [0] * 2 + [2] * 4 + [0] * 2
    assert rows(cases.load_case("y")[1][:]) == [1] * 4 + [MAYBE] * 2 + [IGNORED] * 4 + [MAYBE] * 2
    assert cases.supervised_share == pytest.approx((12 + 8) / 24)


def test_objects_with_few_voxels_are_skipped_and_counted(tmp_path: Path) -> None:
    few, enough = one_hot((0, 1, 1.0), (0, 0, 0)), one_hot((0, 2, 1.0), (0, 0, 0))
    assert 3 * 12 < FEWEST_VOXELS < 2 * 3 * 12
    cases = pseudo_labelled(tmp_path, LABELS, [1, 2], x=few, y=enough)
    assert cases.identifiers == ["y"]
    assert cases.skipped == {1: 1, 2: 2}
    assert set(cases.load_case("y")[3]["class_locations"]) == {1, ANNOTATED}


def test_an_object_that_is_small_for_its_kind_is_not_found_and_its_voxels_say_nothing(tmp_path: Path) -> None:
    trust = Trust(LABELS, {1: FEWEST_VOXELS, 2: 3 * 12 * 5})
    save(one_hot((0, 4, 1.0), (6, 10, 1.0)), tmp_path / "x", trust)
    small = PseudoLabelledCases({"x": tmp_path / "image_x"}, tmp_path, trust)
    assert small.missing == {"x": [2]}
    assert small.skipped == {2: 1}
    _, segmentation, _, properties = small.load_case("x")
    assert rows(segmentation[:]) == [1] * 4 + [MAYBE] * 2 + [IGNORED] * 4 + [MAYBE] * 2
    assert small.supervised_share == pytest.approx(8 / 12)
    assert set(properties["class_locations"]) == {1, ANNOTATED}
    assert set(segmentation[:][tuple(properties["class_locations"][ANNOTATED].T)]) == {1, MAYBE}


def test_a_tenth_of_an_objects_median_size_has_to_be_found() -> None:
    assert least_voxels([80_000, 40_000]) == 6000
    assert least_voxels([100, 400]) == least_voxels([]) == FEWEST_VOXELS
    assert least_voxels([40, 40]) == 20  # of an object that never has 50 voxels
    assert least_voxels([1]) == 1


@pytest.mark.parametrize(("rows_of_second", "believed"), [((0, 8), True), ((2, 9), True), ((5, 9), False)])
def test_an_object_on_which_two_predictions_disagree_is_not_believed(
    tmp_path: Path, rows_of_second: tuple[int, int], believed: bool
) -> None:
    first, second = one_hot((0, 8, 1.0), (10, 12, 1.0)), one_hot((*rows_of_second, 1.0), (10, 12, 1.0))
    overlap, sizes = 8 - rows_of_second[0], 8 + rows_of_second[1] - rows_of_second[0]
    assert (2 * overlap / sizes >= AGREEMENT) == believed
    save(first, tmp_path / "x", Trust(LABELS, {1: 1}), second)
    confidence = blosc2.open(str(tmp_path / "x.b2nd"))[:]
    assert rows(confidence) == [255 * believed] * 8 + [255] * 4


def test_regions(tmp_path: Path) -> None:
    probabilities = np.zeros((2, *SHAPE), np.float32)
    probabilities[0, :, :8] = 0.95  # the whole
    probabilities[1, :, :4] = 0.95  # its core
    probabilities[1, :, 4:6] = 0.4
    cases = pseudo_labelled(tmp_path, REGIONS, [(1, 2), 2], x=probabilities)
    _, segmentation, _, properties = cases.load_case("x")
    assert rows(segmentation[:]) == [2] * 4 + [IGNORED] * 2 + [1] * 2 + [0] * 4
    assert properties["class_locations"][2][:, 2].max() == 3
    assert set(properties["class_locations"][1, 2][:, 2]) == {0, 1, 2, 3, 6, 7}


def test_with_an_ignore_label_nnunet_finds_the_confident_voxels(tmp_path: Path) -> None:
    probabilities = one_hot((4, 8, 1.0), (0, 0, 0))
    probabilities[:, :, :4] = 0.3
    cases = pseudo_labelled(tmp_path, LABELS, [1], x=probabilities)
    confident = cases.load_case("x")[3]["class_locations"][ANNOTATED]
    assert len(confident)
    assert (confident[:, 2] >= 4).all()


def test_the_confidence_is_saved_in_steps_of_1_255_and_replaced_atomically(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probabilities = np.random.default_rng(0).random((3, *SHAPE), dtype=np.float32)
    probabilities /= probabilities.sum(0)
    trust = Trust(LABELS, {1: 1})
    save(probabilities, tmp_path / "x", trust)
    before = (tmp_path / "x.b2nd").read_bytes()
    confidence = blosc2.open(str(tmp_path / "x.b2nd"))[:]
    np.testing.assert_allclose(confidence[0] / 255, probabilities.max(0), atol=0.5 / 255 + 1e-6)

    def full(array: np.ndarray, urlpath: str, **options: object) -> None:
        Path(urlpath).write_bytes(b"half")
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(blosc2, "asarray", full)
        with pytest.raises(InputError, match="No space"):
            save(probabilities[::-1].copy(), tmp_path / "x", trust)
    assert (tmp_path / "x.b2nd").read_bytes() == before
    save(probabilities[::-1].copy() ** 2, tmp_path / "x", trust)
    assert (tmp_path / "x.b2nd").read_bytes() != before


def test_neither_labels_nor_properties_are_opened(tmp_path: Path) -> None:
    for name in ("image_x_seg.b2nd", "image_x.pkl"):
        (tmp_path / name).write_bytes(b"garbage")
    cases = pseudo_labelled(tmp_path, LABELS, [1], x=one_hot((0, 6, 1.0), (0, 0, 0)))
    cases.load_case("x")[1][:]


@pytest.mark.parametrize("labels", [LABELS, REGIONS])
def test_all_but_the_largest_component_become_unsure_background(tmp_path: Path, labels: LabelManager) -> None:
    if labels.has_regions:
        probabilities = np.zeros((2, *SHAPE), np.float32)
        probabilities[0, :, 0:8], probabilities[0, :, 10:12] = 1, 1
    else:
        probabilities = one_hot((0, 8, 1.0), (10, 12, 1.0))
    save(probabilities, tmp_path / "x", Trust(labels, {1: 1}, [(1, 2)]))
    segmentation = blosc2.open(str(tmp_path / "x_seg.b2nd"))[:]
    assert rows(segmentation) == [1] * 8 + [0] * 4
    assert rows(blosc2.open(str(tmp_path / "x.b2nd"))[:]) == [255] * 10 + [0] * 2


def test_outside_the_body_labels_are_minus_one_as_nnunets_own(tmp_path: Path) -> None:
    image = np.ones((2, *SHAPE), np.float32)
    image[:, :, :3] = 0
    image[0, :, 3:5] = 0  # the other channel shows something
    blosc2.asarray(image, urlpath=str(tmp_path / "image_x.b2nd"))
    for masks_background, outside in ((True, -1), (False, 1)):
        trust = Trust(LABELS, dict.fromkeys([1, 2], FEWEST_VOXELS), masks_background=masks_background)
        save(one_hot((0, 6, 1.0), (6, 12, 1.0)), tmp_path / "x", trust)
        cases = PseudoLabelledCases({"x": tmp_path / "image_x"}, tmp_path, trust)
        _, segmentation, _, properties = cases.load_case("x")
        assert rows(segmentation[:]) == [outside] * 3 + [1] * 3 + [2] * 6
        assert rows(segmentation[:, :, 2:4]) == [outside, 1]
        assert properties["class_locations"][1][:, 2].min() == (3 if masks_background else 0)
        assert cases.supervised_share == pytest.approx(9 / 12 if masks_background else 1)


def test_a_case_is_saved_when_its_last_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nnunet_semcl.data.pseudo_labels.pickle.dumps", lambda content: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save(one_hot((0, 6, 1.0), (6, 12, 1.0)), tmp_path / "x", Trust(LABELS, {1: 1}))
    assert (tmp_path / "x.b2nd").is_file()
    assert not is_saved(tmp_path / "x")
    monkeypatch.undo()
    save(one_hot((0, 6, 1.0), (6, 12, 1.0)), tmp_path / "x", Trust(LABELS, {1: 1}))
    assert is_saved(tmp_path / "x")


def test_to_read_them_only_the_small_files_are_read(tmp_path: Path) -> None:
    cases = pseudo_labelled(tmp_path, LABELS, [1, 2], x=one_hot((0, 4, 1.0), (6, 10, 1.0)))
    for file in tmp_path.glob("*.b2nd"):
        file.write_bytes(b"not read")
    again = PseudoLabelledCases(cases.images, tmp_path, cases.trust)
    assert again.identifiers == ["x"]
    assert again.supervised_share == cases.supervised_share == 1


class OnAccelerator(torch.Tensor):
    """A tensor that, like one on a GPU, becomes an array by way of the CPU alone; so does what is computed from it."""

    def cpu(self) -> torch.Tensor:  # type: ignore[override]
        return self.as_subclass(torch.Tensor)

    def numpy(self, *args: object, **kwargs: object) -> np.ndarray:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    __array__ = numpy


@pytest.mark.parametrize("kind", [torch.Tensor, OnAccelerator])
@pytest.mark.parametrize("labels", [LABELS, REGIONS])
def test_logits_are_taken_a_few_slices_at_a_time(labels: LabelManager, kind: type) -> None:
    """Against nnU-Net's own functions on the whole volume."""
    heads = 2 if labels.has_regions else 3
    logits = torch.randn(heads, 2 * SLICES + 3, 5, 4, generator=torch.Generator().manual_seed(0)).half()
    prediction = Prediction.from_logits(logits.as_subclass(kind), labels)
    probabilities = labels.apply_inference_nonlin(logits)
    expected = labels.convert_probabilities_to_segmentation(probabilities).numpy()
    np.testing.assert_array_equal(prediction.segmentation, expected)
    p = probabilities.numpy()
    confidence = np.maximum(p, 1 - p).min(0) if labels.has_regions else p.max(0)
    np.testing.assert_allclose(prediction.confidence / 255, confidence, atol=0.5 / 255 + 1e-6)
