"""Entropies against SciPy's, and pooled features against the plain weighted mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from scipy.special import expit, softmax
from scipy.stats import entropy
from torch import nn

from nnunet_semcl.data import uncertainty
from nnunet_semcl.data.uncertainty import ForegroundFeatures, Uncertainty

LABELS = LabelManager({"background": 0, "a": 1, "b": 2, "ignore": 3}, None)
REGIONS = LabelManager({"background": 0, "whole": [1, 2], "core": 2}, [1, 2])


def expected(logits: np.ndarray, labels: LabelManager) -> tuple[np.ndarray, np.ndarray]:
    """Entropy, and whether foreground is notable, by SciPy."""
    if labels.has_regions:
        p = expit(logits)
        return entropy(np.stack((p, 1 - p)), base=2, axis=0).max(0), p.max(0) >= 0.1
    p = softmax(logits, 0)
    return entropy(p, base=len(p), axis=0), 1 - p[0] >= 0.1


@pytest.mark.parametrize("labels", [LABELS, REGIONS], ids=["labels, ignore", "regions"])
def test_the_mean_is_over_voxels_with_notable_foreground(labels: LabelManager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uncertainty, "SLICES", 2)
    heads = labels.num_segmentation_heads
    logits = 3 * np.random.default_rng(0).standard_normal((heads, 5, 6, 7)).astype(np.float32)
    found = Uncertainty.from_logits(torch.from_numpy(logits), labels)
    of_voxels, notable = expected(logits, labels)
    assert 0 < notable.sum() < notable.size
    assert found.voxels == notable.sum()
    assert found.mean == pytest.approx(of_voxels[notable].mean(), abs=1e-5)
    np.testing.assert_allclose(found.entropy, of_voxels * notable, atol=1e-3)


@pytest.mark.parametrize(("labels", "heads"), [(LABELS, 3), (REGIONS, 2)])
def test_from_0_to_1(labels: LabelManager, heads: int) -> None:
    unknown = Uncertainty.from_logits(torch.zeros(heads, 2, 3, 3), labels)
    assert unknown.mean == pytest.approx(1)
    sure = torch.full((heads, 2, 3, 3), -40.0)
    sure[-1] = 40
    assert Uncertainty.from_logits(sure, labels).mean == pytest.approx(0, abs=1e-6)


def test_where_nothing_is_suspected_there_is_nothing_to_be_unsure_of() -> None:
    logits = torch.zeros(3, 2, 3, 3)
    logits[0] = 20
    found = Uncertainty.from_logits(logits, LABELS)
    assert (found.mean, found.voxels) == (0, 0)
    assert not found.entropy.any()


@pytest.mark.parametrize("labels", [LABELS, REGIONS], ids=["labels", "regions"])
def test_features_are_pooled_over_windows_by_foreground_probability(labels: LabelManager) -> None:
    torch.manual_seed(0)
    heads = labels.num_segmentation_heads
    network = PlainConvUNet(1, 2, (4, 8), nn.Conv2d, 3, (1, 2), 1, heads, 1).eval()
    windows = torch.randn(3, 2, 1, 8, 8)  # three passes of two images
    features: list[torch.Tensor] = []
    hook = network.decoder.stages[-1].register_forward_hook(lambda *of: features.append(of[2]))
    pooled = ForegroundFeatures(network, labels)
    with torch.no_grad():
        outputs = [network(window) for window in windows]
    found = pooled.take()
    hook.remove()
    weights = [o.sigmoid().amax(1) if labels.has_regions else 1 - o.softmax(1)[:, 0] for o in outputs]
    weight = torch.stack(weights)[:, :, None]
    plain = (torch.stack(features) * weight).sum((0, 1, 3, 4)) / weight.sum()
    np.testing.assert_allclose(found, plain.numpy(), rtol=1e-4, atol=1e-6)
    assert not pooled.take().any()  # of nothing
    pooled.remove()
    assert not network._forward_hooks
    assert not network.decoder.stages[-1]._forward_hooks
