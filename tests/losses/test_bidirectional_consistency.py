from itertools import product

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from torch import nn

from nnunet_semcl.losses.bidirectional_consistency import BidirectionalConsistencyLoss, ramp_up


class CrossEntropy(nn.Module):
    def forward(self, output, target):
        return F.cross_entropy(output, target[:, 0].long())


def hard(output):
    return output.argmax(1, keepdim=True)


def drawn(patches=4, labelled=2, classes=3, size=(6, 8), seed=0):
    torch.manual_seed(seed)
    outputs = [torch.randn(patches, classes, *size, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    return *outputs, torch.randint(0, classes, (labelled, 1, *size))


def plain(first, second, target, weight):
    """The formula voxel by voxel, without torch's cross-entropy."""
    n = len(target)

    def entropy(p, y):
        logs = p - p.exp().sum(1, keepdim=True).log()
        voxels = product(*map(range, (len(p), *p.shape[2:])))
        return -torch.stack([logs[b, y[b, 0, i, j], i, j] for b, i, j in voxels]).mean()

    supervised = entropy(first[:n], target) + entropy(second[:n], target)
    of_first, of_second = hard(first[n:].detach()), hard(second[n:].detach())
    return supervised + weight * (entropy(first[n:], of_second) + entropy(second[n:], of_first))


@pytest.mark.parametrize("labelled", (1, 2, 3))
def test_value_and_gradients_are_those_of_the_plain_formula(labelled):
    first, second, target = drawn(labelled=labelled)
    loss = BidirectionalConsistencyLoss(CrossEntropy(), hard)
    loss.weight = 0.7
    ours, theirs = loss((first, second), target), plain(first, second, target, 0.7)
    assert torch.allclose(ours, theirs, rtol=1e-12)
    for a, b in zip(*(torch.autograd.grad(value, (first, second)) for value in (ours, theirs)), strict=True):
        assert torch.allclose(a, b, atol=1e-12)


def test_no_gradient_goes_through_pseudo_labels():
    """As a function of the first output alone, the second's pseudo-labels are constants."""
    first, second, target = drawn()
    straight_through = BidirectionalConsistencyLoss(CrossEntropy(), lambda p: hard(p) + 0 * p[:, :1])
    straight_through.weight = 1.0
    (of_second,) = torch.autograd.grad(straight_through((first, second), target), second)
    fixed = BidirectionalConsistencyLoss(CrossEntropy(), lambda p: hard(p))
    fixed.weight = 1.0
    other = first.detach().clone()  # same pseudo-labels, no graph
    (expected,) = torch.autograd.grad(fixed((other, second), target), second)
    assert torch.equal(of_second, expected)


def test_weight_nought_and_no_unlabelled_patches_leave_the_supervised_terms():
    first, second, target = drawn()
    loss = BidirectionalConsistencyLoss(CrossEntropy(), hard)
    supervised = CrossEntropy()(first[:2], target) + CrossEntropy()(second[:2], target)
    assert torch.equal(loss((first, second), target), supervised)
    loss.weight = 1.0
    assert torch.equal(loss((first[:2], second[:2]), target), supervised)


def test_decoders_that_agree_are_rewarded():
    first, _, target = drawn()
    loss = BidirectionalConsistencyLoss(CrossEntropy(), hard)
    loss.weight = 1.0
    assert loss((5 * first, 5 * first), target) < loss((5 * first, -5 * first), target)


def test_with_deep_supervision_each_level_gets_the_finest_pseudo_labels():
    dice_and_entropy = {"batch_dice": True, "smooth": 1e-5, "do_bg": False, "ddp": False}
    nnunets = DeepSupervisionWrapper(DC_and_CE_loss(dice_and_entropy, {}), [2 / 3, 1 / 3])
    torch.manual_seed(0)
    first, second = ([torch.randn(4, 3, 8, 8), torch.randn(4, 3, 4, 4)] for _ in range(2))
    target = [torch.randint(0, 3, (2, 1, 8, 8)), torch.randint(0, 3, (2, 1, 4, 4))]
    loss = BidirectionalConsistencyLoss(nnunets, hard)
    loss.weight = 1.0
    labels = [hard(output[0][2:]) for output in (first, second)]
    labels = [[of, of[:, :, ::2, ::2]] for of in labels]
    expected = nnunets([f[:2] for f in first], target) + nnunets([s[:2] for s in second], target)
    expected = expected + nnunets([f[2:] for f in first], labels[1]) + nnunets([s[2:] for s in second], labels[0])
    assert torch.allclose(loss((first, second), target), expected)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_the_ramp_rises_to_one(a, b, length):
    low, high = sorted((a, b))
    assert 0 < ramp_up(low, length) <= ramp_up(high, length) <= 1
    assert ramp_up(1, length) == 1
    assert ramp_up(0, 0.4) == pytest.approx(0.0067, abs=1e-4)
