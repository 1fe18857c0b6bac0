"""Cross pseudo supervision of two decoders against the plain formula."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from torch import Tensor, nn

from nnunet_semcl.losses.bidirectional_consistency import BidirectionalConsistencyLoss, ramp_up


class CrossEntropy(nn.Module):
    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output, target[:, 0].long())


def pseudo_label(output: Tensor) -> Tensor:
    return output.argmax(1, keepdim=True)


def random_batch(labelled: int = 2) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    """Two outputs, labels of the first patches, and pseudo-labels of the others."""
    patches, classes, size = 4, 3, (6, 8)
    torch.manual_seed(0)
    first, second = (torch.randn(patches, classes, *size, dtype=torch.float64, requires_grad=True) for _ in range(2))
    target, *pseudo_labels = (
        torch.randint(0, classes, (n, 1, *size)) for n in (labelled, patches - labelled, patches - labelled)
    )
    return first, second, target, pseudo_labels


def plain(first: Tensor, second: Tensor, target: Tensor, pseudo_labels: list[Tensor], weight: float) -> Tensor:
    """The formula, voxel by voxel, without torch's cross-entropy."""
    n = len(target)

    def entropy(p: Tensor, y: Tensor) -> Tensor:
        logs = p - p.exp().sum(1, keepdim=True).log()
        voxels = product(*map(range, (len(p), *p.shape[2:])))
        return -torch.stack([logs[b, y[b, 0, i, j], i, j] for b, i, j in voxels]).mean()

    supervised = entropy(first[:n], target) + entropy(second[:n], target)
    by_first, by_second = pseudo_labels
    return supervised + weight * (entropy(first[n:], by_second) + entropy(second[n:], by_first))


@pytest.mark.parametrize("labelled", [1, 2, 3])
def test_value_and_gradients_equal_the_plain_formula(labelled: int) -> None:
    first, second, target, pseudo_labels = random_batch(labelled=labelled)
    loss = BidirectionalConsistencyLoss(CrossEntropy())
    loss.weight = 0.7
    ours = loss((first, second), target, pseudo_labels)
    expected = plain(first, second, target, pseudo_labels, 0.7)
    assert torch.allclose(ours, expected, rtol=1e-12)
    for a, b in zip(*(torch.autograd.grad(value, (first, second)) for value in (ours, expected)), strict=True):
        assert torch.allclose(a, b, atol=1e-12)


def test_only_the_supervised_terms_without_weight_or_unlabelled_patches() -> None:
    first, second, target, pseudo_labels = random_batch()
    loss = BidirectionalConsistencyLoss(CrossEntropy())
    supervised = CrossEntropy()(first[:2], target) + CrossEntropy()(second[:2], target)
    assert torch.equal(loss((first, second), target, pseudo_labels), supervised)
    loss.weight = 1.0
    assert torch.equal(loss((first[:2], second[:2]), target, [labels[:0] for labels in pseudo_labels]), supervised)


def test_each_decoder_learns_from_the_other() -> None:
    first, second, target, _ = random_batch()
    loss = BidirectionalConsistencyLoss(CrossEntropy())
    loss.weight = 1.0
    own, other = ([pseudo_label(p[2:]) for p in pair] for pair in ((first, second), (second, first)))
    assert loss((first, second), target, other) < loss((first, second), target, own)


def test_with_deep_supervision_each_level_gets_the_finest_pseudo_labels() -> None:
    dice_and_entropy = {"batch_dice": True, "smooth": 1e-5, "do_bg": False, "ddp": False}
    nnunet_loss = DeepSupervisionWrapper(DC_and_CE_loss(dice_and_entropy, {}), [2 / 3, 1 / 3])
    torch.manual_seed(0)
    first, second = ([torch.randn(4, 3, 8, 8), torch.randn(4, 3, 4, 4)] for _ in range(2))
    target = [torch.randint(0, 3, (2, 1, 8, 8)), torch.randint(0, 3, (2, 1, 4, 4))]
    pseudo_labels = [torch.randint(0, 3, (2, 1, 8, 8)) for _ in range(2)]
    loss = BidirectionalConsistencyLoss(nnunet_loss)
    loss.weight = 1.0
    labels = [[fine, fine[:, :, ::2, ::2]] for fine in pseudo_labels]
    expected = nnunet_loss([f[:2] for f in first], target) + nnunet_loss([s[:2] for s in second], target)
    expected = (
        expected + nnunet_loss([f[2:] for f in first], labels[1]) + nnunet_loss([s[2:] for s in second], labels[0])
    )
    assert torch.allclose(loss((first, second), target, pseudo_labels), expected)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_the_ramp_rises_to_one(a: float, b: float, length: float) -> None:
    low, high = sorted((a, b))
    assert 0 < ramp_up(low, length) <= ramp_up(high, length) <= 1
    assert ramp_up(1, length) == 1
    assert ramp_up(0, 0.4) == pytest.approx(0.0067, abs=1e-4)
