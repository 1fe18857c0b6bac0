"""Embeddings of objects and voxels against nnU-Net's own sliding window over whole feature maps."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from torch import nn

from nnunet_semcl.evaluation.embeddings import Drawn, draw_voxels, embed_case

WIDTH = 4  # features


class FeatureMap(nn.Module):
    """Returns the input of the last segmentation layer in place of logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        network.decoder.stages[-1].register_forward_hook(self._keep)

    def _keep(self, stage: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        self.features = output

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.network(image)
        return self.features.clone()  # which nnU-Net changes in place


def predictor(patch: tuple[int, ...]) -> nnUNetPredictor:
    torch.manual_seed(0)
    conv = (nn.Conv2d, nn.Conv3d)[len(patch) - 2]
    with redirect_stdout(io.StringIO()):
        made = nnUNetPredictor(device=torch.device("cpu"), use_mirroring=False, allow_tqdm=False)
    made.network = PlainConvUNet(1, 2, (WIDTH, 8), conv, 3, (1, 2), 1, 3, 1, nonlin=nn.LeakyReLU).eval()
    made.configuration_manager = SimpleNamespace(patch_size=patch)
    made.label_manager = SimpleNamespace(num_segmentation_heads=WIDTH)
    return made


def case() -> tuple[np.ndarray, np.ndarray]:
    """An image and a segmentation that no window covers, and that is smaller than a window along the last axis."""
    rng = np.random.default_rng(0)
    labels = np.zeros((9, 20, 6), np.int16)
    labels[1:3, 2:15, 1:4] = 1
    labels[2:6, 14:19, 2:] = 2
    labels[8] = -1
    return rng.standard_normal((1, *labels.shape), dtype=np.float32), labels


@pytest.mark.parametrize("patch", [(8, 8), (4, 8, 8)], ids=["2d", "3d"])
def test_they_are_those_of_the_whole_feature_map(patch: tuple[int, ...]) -> None:
    image, labels = case()
    made = predictor(patch)
    drawn = draw_voxels(labels, [0, 1, 2], 6, np.random.default_rng(0))
    means, voxels = embed_case(made, image, labels, [1, (1, 2), 2, 3], drawn)
    assert not made.network.decoder.stages[-1]._forward_hooks
    made.network = FeatureMap(made.network)
    whole = made.predict_sliding_window_return_logits(torch.from_numpy(image)).float().numpy()
    expected = [whole[:, mask].mean(1) for mask in (labels == 1, labels > 0, labels == 2)]
    np.testing.assert_allclose(means[:3], expected, atol=3e-3)  # nnU-Net adds up in half precision
    assert np.isnan(means[3]).all()
    foreground = drawn.labels > 0
    np.testing.assert_allclose(voxels, whole[(slice(None), *drawn.positions.T)].T, atol=1e-2)
    assert np.abs(voxels[foreground]).max() > 0.1


def test_windows_without_objects_and_drawn_voxels_are_left_out() -> None:
    image, labels = case()
    labels[:] = 0
    labels[4, 3:5, 2:4] = 1
    made = predictor((8, 8))
    passes = []
    made.network.register_forward_hook(lambda *of: passes.append(of))
    embed_case(made, image, labels, [1], Drawn(np.array([[4, 3, 2], [7, 1, 1]]), np.array([1, 0])))
    assert len(passes) == 2 + 1  # two windows of slice 4 overlap at the object, one of slice 7 has the other voxel


def test_a_case_without_objects_gives_nan() -> None:
    image, labels = case()
    labels[:] = -1
    drawn = draw_voxels(labels, [0, 1], 5, np.random.default_rng(0))
    means, voxels = embed_case(predictor((8, 8)), image, labels, [1], drawn)
    assert means.shape == (1, WIDTH)
    assert np.isnan(means).all()
    assert voxels.shape == (0, WIDTH)


def test_voxels_are_drawn_evenly_by_class_at_boundaries_too() -> None:
    labels = np.zeros((4, 30, 30), np.int16)
    labels[1:3, 10:20, 10:20] = 1
    labels[0, 0, :3] = 2
    drawn = draw_voxels(labels, [0, 1, 2], 50, np.random.default_rng(1))
    assert [int((drawn.labels == label).sum()) for label in (0, 1, 2)] == [50, 50, 3]
    assert (labels[tuple(drawn.positions.T)] == drawn.labels).all()
    assert len(np.unique(drawn.positions, axis=0)) == 103
    of_object = drawn.positions[drawn.labels == 1]
    edge = ((of_object[:, 1:] == 10) | (of_object[:, 1:] == 19)).any(1)
    assert 0.2 < edge.mean() < 0.6  # 36 of 100 voxels of a slice are at its edge
    again = draw_voxels(labels, [0, 1, 2], 50, np.random.default_rng(1))
    assert (again.positions == drawn.positions).all()
