from __future__ import annotations

from pathlib import Path

import blosc2
import numpy as np
import pytest
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_semcl.data.attention import UNKNOWN
from nnunet_semcl.data.coarse_attention import FEWEST_VOXELS, CoarseAttention, save_soft_masks

LABELS = LabelManager({"background": 0, "a": 1, "b": 2}, None)
REGIONS = LabelManager({"background": 0, "whole": (1, 2), "core": 2}, (1, 2))
SHAPE = (3, 12, 12)


def one_hot(*boxes: tuple[int, int, float]) -> np.ndarray:
    """Background but for rows [start, end) of class 1, 2, ... with the given probability."""
    probabilities = np.zeros((len(boxes) + 1, *SHAPE), np.float32)
    for head, (start, end, probability) in enumerate(boxes, start=1):
        probabilities[head, :, start:end] = probability
    probabilities[0] = 1 - probabilities.sum(0)
    return probabilities


def attention(folder: Path, labels: LabelManager, objects: list, **cases: np.ndarray) -> CoarseAttention:
    for case, probabilities in cases.items():
        save_soft_masks(probabilities, folder / case)
        image = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(1, *SHAPE)
        blosc2.asarray(image, urlpath=str(folder / f"image_{case}.b2nd"))
    return CoarseAttention({case: folder / f"image_{case}" for case in cases}, folder, objects, labels)


def test_confident_voxels_are_centres_and_others_unknown(tmp_path):
    coarse = attention(tmp_path, LABELS, [1, 2], x=one_hot((0, 4, 1.0), (6, 10, 0.8)))
    assert set(coarse.centres) == {1} and coarse.skipped == {2: 1}
    assert (coarse.centres[1]["x"][:, 1] < 4).all() and len(coarse.centres[1]["x"]) == 3 * 4 * 12
    image, segmentation = coarse.cut("x", [[0, 3], [2, 14], [0, 12]])
    assert image.shape == segmentation.shape == (1, 3, 12, 12) and segmentation.dtype == np.int16
    expected = np.array([1, 1, 0, 0, *[UNKNOWN] * 4, 0, 0, UNKNOWN, UNKNOWN])  # the last two lie beyond the case
    assert (segmentation[0] == expected[:, None]).all()
    assert image[0, 0, 0, 0] == 2 * 12


def test_objects_with_few_voxels_are_skipped_and_counted(tmp_path):
    few, enough = one_hot((0, 1, 1.0), (0, 0, 0)), one_hot((0, 2, 1.0), (0, 0, 0))
    assert 3 * 12 < FEWEST_VOXELS < 2 * 3 * 12
    coarse = attention(tmp_path, LABELS, [1, 2], x=few, y=enough)
    assert set(coarse.centres[1]) == {"y"} and coarse.skipped == {1: 1, 2: 2}


def test_regions(tmp_path):
    probabilities = np.zeros((2, *SHAPE), np.float32)
    probabilities[0, :, :8] = 0.95  # the whole
    probabilities[1, :, :4] = 0.95  # its core
    probabilities[1, :, 4:6] = 0.5
    coarse = attention(tmp_path, REGIONS, [(1, 2), 2], x=probabilities)
    assert coarse.centres[2]["x"][:, 1].max() == 3
    assert set(coarse.centres[1, 2]["x"][:, 1]) == {0, 1, 2, 3, 6, 7}
    labels = coarse.cut("x", [[0, 1], [0, 12], [0, 1]])[1].flatten().tolist()
    assert labels == [2] * 4 + [UNKNOWN] * 2 + [1] * 2 + [0] * 4


def test_soft_masks_are_kept_to_a_255th_and_replaced_as_a_whole(tmp_path, monkeypatch):
    probabilities = np.random.default_rng(0).random((3, *SHAPE), dtype=np.float32)
    save_soft_masks(probabilities, tmp_path / "x")
    before = (tmp_path / "x.b2nd").read_bytes()
    np.testing.assert_allclose(blosc2.open(str(tmp_path / "x.b2nd"))[:] / 255, probabilities, atol=0.5 / 255 + 1e-6)

    def full(*args, **kwargs):
        (tmp_path / ".x.b2nd").write_bytes(b"half")
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(blosc2, "asarray", full)
        with pytest.raises(OSError):
            save_soft_masks(probabilities[::-1], tmp_path / "x")
    assert (tmp_path / "x.b2nd").read_bytes() == before
    save_soft_masks(probabilities[::-1], tmp_path / "x")
    assert (tmp_path / "x.b2nd").read_bytes() != before


def test_neither_labels_nor_properties_are_opened(tmp_path):
    for name in ("image_x_seg.b2nd", "image_x.pkl"):
        (tmp_path / name).write_bytes(b"garbage")
    coarse = attention(tmp_path, LABELS, [1], x=one_hot((0, 6, 1.0), (0, 0, 0)))
    coarse.cut("x", [[0, 1], [0, 2], [0, 2]])
