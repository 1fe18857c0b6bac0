"""A segmentation loss for images in which some classes were not looked for, or not found."""

from __future__ import annotations

from collections.abc import Iterator

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
        levels = zip(levels_of(output), levels_of(target), strict=True)
        pairs = [self._known(*level, missing, self.maybe_background) for level in levels]
        outputs, targets = map(list, zip(*pairs, strict=True))
        return self.loss(outputs, targets) if isinstance(output, (list, tuple)) else self.loss(outputs[0], targets[0])

    def _known(self, logits: Tensor, target: Tensor, missing: Tensor, maybe_background: int) -> tuple[Tensor, Tensor]:
        """Returns logits and target of one level, of what the target knows."""
        if self.regions:
            maybe = target[:, self.regions : self.regions + 1].bool()
            unknown = maybe & missing.to(maybe.device).view(*missing.shape, *[1] * (logits.ndim - 2))
            known = torch.cat((target[:, : self.regions], target[:, self.regions + 1 :]), dim=1)
            return logits.masked_fill(unknown, IMPOSSIBLE), known
        maybe = torch.eq(target, maybe_background)
        return _BackgroundOrMissing.apply(logits, maybe[:, 0], missing), target.masked_fill(maybe, 0)


class _BackgroundOrMissing(torch.autograd.Function):
    """Adds the missing classes' probabilities to that of background, where `maybe` is true.

    logits (B, K, X, Y[, Z]), maybe (B, X, Y[, Z]) bool, missing (B, K) bool -> as the logits. By autograd alone, with
    masks of all classes, the loss would take twice as long.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, logits: Tensor, maybe: Tensor, missing: Tensor) -> Tensor:
        merged = logits.clone()
        for number, classes in _incomplete(missing):
            image, there = merged[number], maybe[number]
            either = torch.stack([image[one] for one in (0, *classes)]).float().logsumexp(0)  # (X, Y[, Z])
            image[0] = torch.where(there, either.to(image.dtype), image[0])
            for missing_class in classes:
                image[missing_class].masked_fill_(there, IMPOSSIBLE)
        ctx.save_for_backward(logits, maybe, missing)
        return merged

    @staticmethod
    @once_differentiable
    def backward(ctx: BackwardCFunction, gradient: Tensor) -> tuple[Tensor, None, None]:
        logits, maybe, missing = ctx.saved_tensors  # type: ignore[misc]  # torch's stub knows one tensor only
        of_logits = gradient.clone()
        for number, classes in _incomplete(missing):
            image, of_image, there = logits[number], of_logits[number], maybe[number]
            share = torch.stack([image[one] for one in (0, *classes)]).float().softmax(0)  # of the summed probability
            of_background = of_image[0].clone()
            for part, one in zip(share, (0, *classes), strict=True):
                of_image[one] = torch.where(there, of_background * part, of_image[one])
        return of_logits, None, None


def _incomplete(missing: Tensor) -> Iterator[tuple[int, list[int]]]:
    """Yields number and missing classes of each image that lacks any."""
    for number, flags in enumerate(missing.tolist()):
        if any(flags):
            yield number, [one for one, flag in enumerate(flags) if flag]
