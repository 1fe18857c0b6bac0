"""Supervised contrastive loss, computed exactly in tiles of rows: memory grows with N, not with N x N.

A few embeddings on a GPU are computed by the plain formula, which is faster there.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction, once_differentiable

from nnunet_semcl.losses.tiles import are_few, tile_rows


class SupConLoss(nn.Module):
    """Supervised contrastive loss (Khosla et al. 2020, eq. 2, "L_out"; SemCL's loss, Lee et al. 2023).

    z are the L2-normalised embeddings, P(i) the other samples with the label of i, and M the number of anchors, the
    samples whose P(i) is not empty:

        L = 1/M sum_i -1/|P(i)| sum_{p in P(i)} log( exp(z_i . z_p / t) / sum_{a != i} exp(z_i . z_a / t) )

    A sample without positives is not an anchor but is still a negative for the others. Without anchors the loss is a
    differentiable zero. Half-precision inputs and autocast are computed in float32, float64 inputs in float64. Only
    first derivatives exist.

    Args:
        temperature: t, above zero.

    Shape:
        embeddings: (N, D), any scale.
        labels: (N,), any integers.
        output: scalar, float32 or float64.

    Raises:
        ValueError: the temperature is not above zero and finite; embeddings are not (N, D); labels are not (N,) or
            not integers.

    Sources: https://arxiv.org/abs/2004.11362, https://arxiv.org/abs/2106.01596

    >>> import torch
    >>> from nnunet_semcl.losses import SupConLoss
    >>> embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> SupConLoss(temperature=1.0)(embeddings, torch.tensor([4, 4, 9]))  # log(1 + exp(-1))
    tensor(0.3133)
    """

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature must be above zero and finite, not {temperature}")
        self.temperature = temperature

    # A compiler would unroll the loop over tiles for every N.
    @torch.compiler.disable
    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        if embeddings.ndim != 2:
            raise ValueError(f"embeddings must be (N, D), not {tuple(embeddings.shape)}")
        if labels.shape != embeddings.shape[:1]:
            raise ValueError(f"labels must be ({len(embeddings)},) as the embeddings are, not {tuple(labels.shape)}")
        if labels.is_floating_point() or labels.is_complex():
            raise ValueError(f"labels must be integers, not {labels.dtype}")

        z = F.normalize(embeddings.to(torch.promote_types(embeddings.dtype, torch.float32)))  # (N, D)
        if _plain_is_faster(z):
            return self._plain(z, labels)
        _, class_of, class_size = torch.unique(labels, return_inverse=True, return_counts=True)
        positives = class_size[class_of] - 1  # (N,), number of positives of each sample
        is_anchor = positives > 0
        weight = is_anchor.to(z.dtype) / is_anchor.sum().clamp(min=1)  # (N,), 1/M at anchors

        # The sum of z_i . z_p over a class needs no pairs: it is z_i . (sum of the class - z_i).
        # index_select, because the gradient of [class_of] sums in an order that varies between runs.
        own_class = _class_means(z, class_of, class_size).index_select(0, class_of)  # (N, D)
        to_class = (z * own_class).sum(dim=1) * (positives + 1) - z.square().sum(dim=1)  # (N,)
        similarity = to_class / positives.clamp(min=1) / self.temperature  # (N,), mean of z_i . z_p / t over P(i)
        return _WeightedLoss.apply(z, similarity, weight, self.temperature)

    def _plain(self, z: Tensor, labels: Tensor) -> Tensor:
        itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
        is_positive = (labels[:, None] == labels).logical_and_(~itself)  # (N, N)
        positives = is_positive.sum(dim=1)  # (N,)
        with torch.autocast(z.device.type, enabled=False):
            similarity = z @ z.T / self.temperature  # (N, N)
        log_denominator = similarity.masked_fill(itself, torch.finfo(z.dtype).min).logsumexp(dim=1, keepdim=True)
        log_share = ((similarity - log_denominator) * is_positive).sum(dim=1) / positives.clamp(min=1)  # (N,)
        return -log_share.sum() / (positives > 0).sum().clamp(min=1)


def _plain_is_faster(z: Tensor) -> bool:
    return z.device.type != "cpu" and are_few(z)  # on a CPU, a tile in the cache is faster however few there are


def _class_means(z: Tensor, class_of: Tensor, class_size: Tensor) -> Tensor:
    """Mean of each class's samples: (N, D), (N,), (classes,) -> (classes, D)."""
    share = 1 / class_size[class_of].to(z.dtype).unsqueeze(1)  # (N, 1)
    zeros = z.new_zeros(len(class_size), z.shape[1])
    means = zeros.index_add(0, class_of, z * share)
    # index_add sums sequentially, so large classes lose digits: adding the mean residual restores them.
    return means + zeros.index_add(0, class_of, (z - means.index_select(0, class_of)) * share)


class _WeightedLoss(torch.autograd.Function):
    """sum_i weight_i ( log sum_{a != i} exp(z_i . z_a / t) - similarity_i ), for z (N, D), similarity and weight (N,).

    The gradient with respect to z is computed together with the value, while each tile of similarities is in memory.
    With the softmax p_ia = exp(z_i . z_a / t) / sum_{b != i} exp(z_i . z_b / t) it is

        d/dz_k = 1/t ( sum_a weight_k p_ka z_a + sum_i weight_i p_ik z_i ).
    """

    @staticmethod
    def forward(ctx: BackwardCFunction, z: Tensor, similarity: Tensor, weight: Tensor, temperature: float) -> Tensor:
        n = len(z)
        scaled = z / temperature  # (N, D)
        log_denominator = z.new_empty(n)
        gradient = torch.zeros_like(z)
        step = tile_rows(z)
        tiles = z.new_empty(step, n)
        for start in range(0, n, step):
            rows = slice(start, min(start + step, n))
            tile = tiles[: rows.stop - start]  # (T, N), changed in place from similarities to weight * p
            # out= and addmm_ save memory, and autocast leaves them in full precision.
            torch.mm(scaled[rows], z.T, out=tile)
            # Not -inf, which would give NaN for a single sample.
            tile.diagonal(start).fill_(torch.finfo(z.dtype).min)
            highest = tile.amax(dim=1, keepdim=True)
            total = tile.sub_(highest).exp_().sum(dim=1, keepdim=True)
            log_denominator[rows] = (highest + total.log()).squeeze(1)
            if ctx.needs_input_grad[0]:
                tile.mul_(weight[rows, None] / total)
                gradient[rows].addmm_(tile, scaled)
                gradient.addmm_(tile.T, scaled[rows])
        ctx.save_for_backward(gradient, weight)
        return (weight * (log_denominator - similarity)).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: BackwardCFunction, grad_output: Tensor) -> tuple[Tensor, Tensor, None, None]:
        gradient, weight = ctx.saved_tensors  # type: ignore[misc]  # torch's stub knows one tensor only
        return gradient * grad_output, -weight * grad_output, None, None
