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
    target, *pseudo_labels = (
        torch.randint(0, classes, (n, 1, *size)) for n in (labelled, patches - labelled, patches - labelled)
    )
    return *outputs, target, pseudo_labels


def plain(first, second, target, pseudo_labels, weight):
    """The formula voxel by voxel, without torch's cross-entropy."""
    n = len(target)

    def entropy(p, y):
        logs = p - p.exp().sum(1, keepdim=True).log()
        voxels = product(*map(range, (len(p), *p.shape[2:])))
        return -torch.stack([logs[b, y[b, 0, i, j], i, j] for b, i, j in voxels]).mean()

    supervised = entropy(first[:n], target) + entropy(second[:n], target)
    of_first, of_second = pseudo_labels
    return supervised + weight * (entropy(first[n:], of_second) + entropy(second[n:], of_first))


@pytest.mark.parametrize("labelled", [1, 2, 3])
def test_value_and_gradients_are_those_of_the_plain_formula(labelled):
    first, second, target, pseudo_labels = drawn(labelled=labelled)
    loss = BidirectionalConsistencyLoss(CrossEntropy())
    loss.weight = 0.7
    ours = loss((first, second), target, pseudo_labels)
    theirs = plain(first, second, target, pseudo_labels, 0.7)
    assert torch.allclose(ours, theirs, rtol=1e-12)
    for a, b in zip(*(torch.autograd.grad(value, (first, second)) for value in (ours, theirs)), strict=True):
        assert torch.allclose(a, b, atol=1e-12)


def test_weight_nought_and_no_unlabelled_patches_leave_the_supervised_terms():
    first, second, target, pseudo_labels = drawn()
    loss = BidirectionalConsistencyLoss(CrossEntropy())
    supervised = CrossEntropy()(first[:2], target) + CrossEntropy()(second[:2], target)
    assert torch.equal(loss((first, second), target, pseudo_labels), supervised)
    loss.weight = 1.0
    assert torch.equal(loss((first[:2], second[:2]), target, [of[:0] for of in pseudo_labels]), supervised)


def test_each_decoder_learns_from_the_other():
    first, second, target, _ = drawn()
    loss = BidirectionalConsistencyLoss(CrossEntropy())
    loss.weight = 1.0
    own, other = ([hard(p[2:]) for p in pair] for pair in ((first, second), (second, first)))
    assert loss((first, second), target, other) < loss((first, second), target, own)


def test_with_deep_supervision_each_level_gets_the_finest_pseudo_labels():
    dice_and_entropy = {"batch_dice": True, "smooth": 1e-5, "do_bg": False, "ddp": False}
    nnunets = DeepSupervisionWrapper(DC_and_CE_loss(dice_and_entropy, {}), [2 / 3, 1 / 3])
    torch.manual_seed(0)
    first, second = ([torch.randn(4, 3, 8, 8), torch.randn(4, 3, 4, 4)] for _ in range(2))
    target = [torch.randint(0, 3, (2, 1, 8, 8)), torch.randint(0, 3, (2, 1, 4, 4))]
    pseudo_labels = [torch.randint(0, 3, (2, 1, 8, 8)) for _ in range(2)]
    loss = BidirectionalConsistencyLoss(nnunets)
    loss.weight = 1.0
    labels = [[of, of[:, :, ::2, ::2]] for of in pseudo_labels]
    expected = nnunets([f[:2] for f in first], target) + nnunets([s[:2] for s in second], target)
    expected = expected + nnunets([f[2:] for f in first], labels[1]) + nnunets([s[2:] for s in second], labels[0])
    assert torch.allclose(loss((first, second), target, pseudo_labels), expected)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_the_ramp_rises_to_one(a, b, length):
    low, high = sorted((a, b))
    assert 0 < ramp_up(low, length) <= ramp_up(high, length) <= 1
    assert ramp_up(1, length) == 1
    assert ramp_up(0, 0.4) == pytest.approx(0.0067, abs=1e-4)
