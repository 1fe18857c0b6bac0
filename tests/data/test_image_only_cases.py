from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader

from nnunet_semcl.data.image_only_cases import ImageOnlyCases


def cases(tmp_path: Path, ignore: bool) -> tuple[ImageOnlyCases, SimpleNamespace]:
    np.savez(tmp_path / "a.npz", data=np.random.default_rng(0).random((2, 5, 20, 24), dtype=np.float32))
    (tmp_path / "a.pkl").write_bytes(b"garbage")
    (tmp_path / "a_seg.b2nd").write_bytes(b"garbage")
    labels = SimpleNamespace(has_ignore_label=ignore, all_labels=[1, 2])
    return ImageOnlyCases({"a": tmp_path / "a"}, labels), labels


def test_outside_the_body_the_segmentation_is_minus_one_as_nnunets_own(tmp_path: Path) -> None:
    image = np.ones((1, 2, 4, 4), np.float32)
    image[:, :, :2] = 0
    np.savez(tmp_path / "a.npz", data=image)
    labels = SimpleNamespace(has_ignore_label=False, all_labels=[1])
    segmentation = ImageOnlyCases({"a": tmp_path / "a"}, labels, masks_background=True).load_case("a")[1]
    assert (segmentation[:, :, :2] == -1).all()
    assert not segmentation[:, :, 2:].any()


def test_nnunets_loader_draws_patches_and_only_the_image_is_opened(tmp_path: Path) -> None:
    for ignore in (False, True):
        data, labels = cases(tmp_path, ignore)
        image, segmentation, previous, properties = data.load_case("a")
        assert image.shape == (2, 5, 20, 24)
        assert segmentation.shape == (1, 5, 20, 24)
        assert not segmentation[:].any()
        assert previous is None
        loader = nnUNetDataLoader(data, 3, [16, 16], [16, 16], labels, probabilistic_oversampling=True)
        batch = loader.generate_train_batch()
        assert batch["data"].shape == (3, 2, 16, 16)
        assert (batch["target"] <= 0).all()
        assert bool(properties["class_locations"]) == ignore
        for places in properties["class_locations"].values():
            assert places.shape[1] == 4
            assert (places[:, 1:] < (5, 20, 24)).all()
