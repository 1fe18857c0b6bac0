"""A segmentation loss for images in which some classes were not looked for, or not found."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction, FunctionCtx, once_differentiable

from nnunet_semcl.losses.deep_supervision import Levels, levels_of

IMPOSSIBLE = -1e4  # as a logit: probability 0, also in half precision


class MarginalLoss(nn.Module):
    """nnU-Net's loss, for which background may be any class that is missing in an image's labels.

    At a voxel labelled `maybe_background` the probabilities of background and of the image's missing classes are added
    up, and the loss sees background there: the labels say that it is none of the other classes. With regions, which
    are independent of each other, a missing region has no loss there.

    Args:
        loss: nnU-Net's loss, called with output and target, with deep supervision or without.
        maybe_background: the label that says so; None if no target has it.
        regions: number of regions if the targets are regions; the channel behind them then says `maybe_background`.

    Shape:
        output: (B, K, X, Y[, Z]), logits; with deep supervision a list from fine to coarse.
        target: labels (B, 1, X, Y[, Z]) or regions (B, regions + 1[ + 1], X, Y[, Z]); the last channel may be nnU-Net's
            for the ignore label. With deep supervision a list.
        missing: (B, K) bool, best on the CPU: it decides there what is computed.
        result: scalar.

    Source: Shi et al., Marginal loss and exclusion loss for partially supervised multi-organ segmentation, Medical
    Image Analysis 70, 2021, arXiv 2007.03868.

    >>> import torch
    >>> from torch import nn
    >>> from nnunet_semcl.losses import MarginalLoss
    >>> cross_entropy = lambda output, target: nn.functional.cross_entropy(output, target[:, 0])
    >>> loss = MarginalLoss(cross_entropy, maybe_background=4)
    >>> logits, target = torch.zeros(1, 3, 1, 1), torch.full((1, 1, 1, 1), 4)
    >>> loss(logits, target, torch.tensor([[False, False, True]]))  # of three equal classes two are possible: log(3/2)
    tensor(0.4055)
    """

    def __init__(self, loss: nn.Module, maybe_background: int | None, regions: int = 0) -> None:
        super().__init__()
        self.loss = loss
        self.maybe_background = maybe_background
        self.regions = regions

    def forward(self, output: Levels, target: Levels, missing: Tensor) -> Tensor:
        if self.maybe_background is None:
            return self.loss(output, target)
        levels = list(zip(levels_of(output), levels_of(target), strict=True))
        device = levels[0][0].device  # to which indices travel once, not for each level
        if self.regions:
            on_device = missing.to(device)
            pairs = [self._known_regions(*level, on_device) for level in levels]
        else:
            incomplete = _incomplete(missing, device)
            pairs = [_known_labels(*level, self.maybe_background, incomplete) for level in levels]
        outputs, targets = map(list, zip(*pairs, strict=True))
        return self.loss(outputs, targets) if isinstance(output, (list, tuple)) else self.loss(outputs[0], targets[0])

    def _known_regions(self, logits: Tensor, target: Tensor, missing: Tensor) -> tuple[Tensor, Tensor]:
        """Returns logits and target of one level, of what the target knows."""
        maybe = target[:, self.regions : self.regions + 1].bool()
        unknown = maybe & missing.view(*missing.shape, *[1] * (logits.ndim - 2))
        known = torch.cat((target[:, : self.regions], target[:, self.regions + 1 :]), dim=1)
        return logits.masked_fill(unknown, IMPOSSIBLE), known


Incomplete = tuple[Tensor, Tensor, Tensor]


def _incomplete(missing: Tensor, device: torch.device) -> Incomplete:
    """The images that lack any class (b, 1); background and the classes that any of them lacks (k); and which of these
    are added up in which image (b, k) bool."""
    images, classes = missing.any(1), missing.any(0)
    classes[0] = True
    images, classes = images.nonzero(), classes.nonzero()[:, 0]
    added = missing[images, classes]
    added[:, 0] = True
    return images.to(device), classes.to(device), added.to(device)


def _known_labels(
    logits: Tensor, target: Tensor, maybe_background: int, incomplete: Incomplete
) -> tuple[Tensor, Tensor]:
    """As `MarginalLoss._known_regions`."""
    maybe = torch.eq(target, maybe_background)
    return _BackgroundOrMissing.apply(logits, maybe[:, 0], *incomplete), target.masked_fill(maybe, 0)


class _BackgroundOrMissing(torch.autograd.Function):
    """Adds the missing classes' probabilities to that of background, where `maybe` is true.

    logits (B, K, X, Y[, Z]), maybe (B, X, Y[, Z]) bool, and what `_incomplete` returns -> as the logits. All images at
    once: on a GPU a loop over them would take longer than the network. By autograd alone, with masks of all classes, it
    would take twice as long.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx, logits: Tensor, maybe: Tensor, images: Tensor, classes: Tensor, added: Tensor
    ) -> Tensor:
        added = added.view(*added.shape, *[1] * (logits.ndim - 2))
        there = maybe[images]  # (b, 1, X, Y[, Z])
        ctx.save_for_backward(logits, there, images, classes, added)
        part = logits[images, classes].float()
        either = part.masked_fill(~added, -math.inf).logsumexp(1, keepdim=True)
        part[:, :1] = torch.where(there, either, part[:, :1])
        part[:, 1:].masked_fill_((added & there)[:, 1:], IMPOSSIBLE)
        merged = logits.clone()
        merged[images, classes] = part.to(merged.dtype)
        return merged

    @staticmethod
    @once_differentiable
    def backward(ctx: BackwardCFunction, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        logits, there, images, classes, added = ctx.saved_tensors  # type: ignore[misc]  # torch's stub knows one tensor
        share = logits[images, classes].float().masked_fill(~added, -math.inf).softmax(1)  # of the summed probability
        part = gradient[images, classes]
        of_logits = gradient.clone()
        of_logits[images, classes] = torch.where(added & there, (part[:, :1] * share).to(part.dtype), part)
        return of_logits, None, None, None, None
