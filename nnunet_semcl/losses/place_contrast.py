"""Contrast of places: voxels at nearly the same place of different images attract each other."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PlaceContrastLoss(nn.Module):
    """Contrast between images, in which the nearer two voxels are in their images, the more they are a positive pair.

    z are the L2-normalised embeddings, p the places, and O(i) the voxels of other images than that of i. With the
    temperature t and the width s:

        w_ij = exp( -|p_i - p_j|^2 / (2 s^2) ) for j in O(i), else 0
        L    = -1/sum w sum_ij w_ij log( exp(z_i . z_j / t) / sum_{a in O(i)} exp(z_i . z_a / t) )

    Where a voxel has nobody near it in another image, it hardly counts; if no voxel has, the loss is a differentiable
    zero. Half-precision inputs and autocast are computed in float32, float64 inputs in float64.

    Args:
        temperature: t, above zero.
        width: s, above zero, in units of the places.

    Shape:
        embeddings: (N, D), any scale.
        places: (N, A).
        images: (N,), integers, the image of each voxel.
        output: scalar, float32 or float64.

    Raises:
        ValueError: temperature or width is not above zero and finite.

    Source: positional contrastive learning (Zeng et al., MICCAI 2021, arXiv 2106.09157), which contrasts slices by a
    threshold of their distance; here voxels, weighted by it.

    >>> import torch
    >>> from nnunet_semcl.losses import PlaceContrastLoss
    >>> embeddings, places = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.5], [0.5], [9.0]])
    >>> PlaceContrastLoss(1.0, 0.1)(embeddings, places, torch.tensor([0, 1, 1]))  # mean of log(1 + exp(-1)) and 0
    tensor(0.1566)
    """

    def __init__(self, temperature: float = 0.1, width: float = 0.05) -> None:
        super().__init__()
        for name, value in (("temperature", temperature), ("width", width)):
            if not 0 < value < math.inf:
                raise ValueError(f"{name} must be above zero and finite, not {value}")
        self.temperature = temperature
        self.width = width

    @torch.compiler.disable
    def forward(self, embeddings: Tensor, places: Tensor, images: Tensor) -> Tensor:
        with torch.autocast(embeddings.device.type, enabled=False):
            precise = torch.promote_types(embeddings.dtype, torch.float32)
            z, p = F.normalize(embeddings.to(precise)), places.to(precise) / self.width
            same_image = images[:, None] == images  # (N, N)
            distance = torch.cdist(p, p, compute_mode="donot_use_mm_for_euclid_dist")  # (N, N), exact
            weight = torch.exp(-distance.square() / 2).masked_fill(same_image, 0)
            similarity = (z @ z.T / self.temperature).masked_fill(same_image, torch.finfo(precise).min)
            log_share = similarity.log_softmax(1).masked_fill(same_image, 0)
            return -(weight * log_share).sum() / weight.sum().clamp(min=torch.finfo(precise).tiny)
