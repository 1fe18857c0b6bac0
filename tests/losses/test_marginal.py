from __future__ import annotations

import pytest
import torch
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from torch import nn
from torch.nn.functional import cross_entropy

from nnunet_semcl.losses.marginal import MarginalLoss

CLASSES, IGNORE, MAYBE = 5, 5, 6
DICE = {"batch_dice": True, "smooth": 1e-5, "do_bg": False, "ddp": False}


def nnunets_loss() -> nn.Module:
    return DC_and_CE_loss(DICE, {}, ignore_label=IGNORE, dice_class=MemoryEfficientSoftDiceLoss)


class CrossEntropy(nn.Module):
    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return cross_entropy(output, target[:, 0].long(), ignore_index=IGNORE)


def sample(*values: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    target = torch.tensor(values)[torch.randint(len(values), (2, 1, 6, 6))].short()
    return torch.randn(2, CLASSES, 6, 6, requires_grad=True), target


def test_the_plain_formula() -> None:
    logits, target = sample(0, 1, 3, MAYBE)
    missing = torch.tensor([[0, 0, 1, 0, 1], [0, 0, 0, 0, 1]]).bool()
    expected = []
    p = logits.softmax(1)
    for b, y, x in torch.cartesian_prod(torch.arange(2), torch.arange(6), torch.arange(6)).tolist():
        label = int(target[b, 0, y, x])
        if label == MAYBE:
            expected.append(-(p[b, 0, y, x] + p[b, missing[b], y, x].sum()).log())
        else:
            expected.append(-p[b, label, y, x].log())
    loss = MarginalLoss(CrossEntropy(), MAYBE)(logits, target, missing)
    reference = torch.stack(expected).mean()
    torch.testing.assert_close(loss, reference)
    (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
    torch.testing.assert_close(gradient, torch.autograd.grad(reference, logits)[0])


@pytest.mark.parametrize("missing", [torch.zeros(2, CLASSES).bool(), torch.ones(2, CLASSES).bool()])
def test_where_background_is_known_it_is_nnunets_loss(missing: torch.Tensor) -> None:
    missing[:, 0] = False
    logits, target = sample(0, 1, 2, 3, 4, IGNORE)
    torch.testing.assert_close(
        MarginalLoss(nnunets_loss(), MAYBE)(logits, target, missing), nnunets_loss()(logits, target)
    )
    assert MarginalLoss(nnunets_loss(), None)(logits, target, missing) == nnunets_loss()(logits, target)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_missing_class_is_free_where_background_is_unclear(dtype: torch.dtype) -> None:
    logits, target = sample(MAYBE)
    missing = torch.tensor([[False, False, True, False, False]] * 2)
    moved = logits.detach().clone()
    moved[:, 2] += 30  # the network is sure of the missing class
    loss = MarginalLoss(CrossEntropy(), MAYBE)
    assert loss(moved.to(dtype), target, missing).float() < 1e-3
    assert loss(moved.to(dtype), target, ~missing & (torch.arange(CLASSES) > 0)).float() > 10


def test_gradients_are_finite_where_a_case_lacks_all_objects() -> None:
    logits, target = sample(MAYBE, IGNORE)
    missing = torch.tensor([[False] + [True] * 4] * 2)
    loss = MarginalLoss(nnunets_loss(), MAYBE)(logits, target, missing)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("with_ignore", [True, False])
def test_regions(with_ignore: bool) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 6, 6, requires_grad=True)
    regions = torch.rand(2, 3, 6, 6) > 0.5
    maybe = (torch.rand(2, 1, 6, 6) > 0.5) & ~regions.any(1, keepdim=True)
    ignored = [torch.zeros(2, 1, 6, 6).bool()] * with_ignore
    missing = torch.tensor([[False, True, False], [False, False, False]])
    bce = DC_and_BCE_loss({}, DICE, use_ignore_label=with_ignore, dice_class=MemoryEfficientSoftDiceLoss)
    loss = MarginalLoss(bce, MAYBE, regions=3)(logits, torch.cat((regions, maybe, *ignored), 1).float(), missing)
    loss.backward()
    assert logits.grad is not None
    free = maybe & missing[:, :, None, None]
    assert not logits.grad[free].any()
    assert logits.grad[maybe & ~missing[:, :, None, None]].all()
    known = MarginalLoss(bce, MAYBE, regions=3)
    target = torch.cat((regions, torch.zeros_like(maybe), *ignored), 1).float()
    torch.testing.assert_close(known(logits, target, missing), bce(logits, torch.cat((regions, *ignored), 1).float()))


def test_deep_supervision() -> None:
    logits, target = sample(0, 1, MAYBE)
    missing = torch.tensor([[False, False, True, False, False]] * 2)
    levels, targets = [logits, logits[..., ::2, ::2]], [target, target[..., ::2, ::2]]
    single = MarginalLoss(nnunets_loss(), MAYBE)
    deep = MarginalLoss(DeepSupervisionWrapper(nnunets_loss(), (0.75, 0.25)), MAYBE)
    expected = 0.75 * single(levels[0], targets[0], missing) + 0.25 * single(levels[1], targets[1], missing)
    torch.testing.assert_close(deep(levels, targets, missing), expected)
