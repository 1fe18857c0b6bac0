"""Contrast of voxels with a memory: InfoNCE for each vector of the voxel's own part, against those of other classes."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MemoryContrastLoss(nn.Module):
    """InfoNCE between anchors and the vectors of a memory, each of a part of a class.

    z are the L2-normalised embeddings of the anchors, m the L2-normalised vectors of the memory. P(i) contains the
    vectors of anchor i's part, N(i) those of all other classes; vectors of other parts of its own class are in neither.
    t is the temperature, and M the number of anchors for which neither P(i) nor N(i) is empty:

        L = 1/M sum_i 1/|P(i)| sum_{p in P(i)}
                -log( exp(z_i . m_p / t) / ( exp(z_i . m_p / t) + sum_{n in N(i)} exp(z_i . m_n / t) ) )

    The memory gets no gradient. Without such anchors the loss is a differentiable zero. Half-precision inputs and
    autocast are computed in float32, float64 inputs in float64.

    Args:
        temperature: t, above zero.

    Shape:
        embeddings: (A, D), any scale.
        classes, parts: (A,), integers.
        memory: (E, D), any scale.
        memory_classes, memory_parts: (E,).
        output: scalar, float32 or float64.

    Raises:
        ValueError: the temperature is not above zero and finite.

    Source: after SPCL (ICASSP 2026), whose memories are of inner and boundary parts, see docs/semcl.md; InfoNCE is from
    van den Oord et al. 2018, arXiv 1807.03748.

    >>> import torch
    >>> from nnunet_semcl.losses import MemoryContrastLoss
    >>> anchor, memory = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> of_class, part = torch.tensor([0, 1]), torch.tensor([0, 0])
    >>> MemoryContrastLoss(1.0)(anchor, of_class[:1], part[:1], memory, of_class, part)  # log(1 + exp(-1))
    tensor(0.3133)
    """

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature must be above zero and finite, not {temperature}")
        self.temperature = temperature

    @torch.compiler.disable
    def forward(
        self,
        embeddings: Tensor,
        classes: Tensor,
        parts: Tensor,
        memory: Tensor,
        memory_classes: Tensor,
        memory_parts: Tensor,
    ) -> Tensor:
        with torch.autocast(embeddings.device.type, enabled=False):
            precise = torch.promote_types(embeddings.dtype, torch.float32)
            z, m = F.normalize(embeddings.to(precise)), F.normalize(memory.detach().to(precise))
            similarity = z @ m.T / self.temperature  # (A, E)
            same_class = classes[:, None] == memory_classes  # (A, E)
            positive = same_class & (parts[:, None] == memory_parts)
            lowest = torch.finfo(precise).min
            against = similarity.masked_fill(same_class, lowest).logsumexp(1, keepdim=True)  # (A, 1), over N(i)
            each = F.softplus(against - similarity).masked_fill(~positive, 0).sum(1)  # (A,)
            positives = positive.sum(1)
            is_anchor = (positives > 0) & ~same_class.all(1)
            weight = is_anchor / (positives.clamp(min=1) * is_anchor.sum().clamp(min=1))
            return (each * weight).sum()
