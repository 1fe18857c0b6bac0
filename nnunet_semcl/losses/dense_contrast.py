"""Dense contrastive loss, computed exactly; many locations in tiles of rows: memory grows with N, not with N x N."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nnunet_semcl.losses.tiles import are_few, tile_rows


class DenseContrastiveLoss(nn.Module):
    """InfoNCE between the same anatomical locations in two views of an image.

    q and k are the L2-normalised features of N locations in the query view and in the key view. Neg(i) contains the
    locations in other images, and those in the same image that are farther than the radius from location i:

        L = 1/N sum_i -log( exp(q_i . k_i / t) / ( exp(q_i . k_i / t) + sum_{j in Neg(i)} exp(q_i . k_j / t) ) )

    Other locations of the image within the radius are neither positives nor negatives. Keys get no gradient: they come
    from a momentum encoder. Half-precision inputs and autocast are computed in float32, float64 inputs in float64.

    Args:
        temperature: t, above zero.
        radius: at least zero, in the unit of the positions.

    Shape:
        query: (N, D), any scale.
        key: (N, D), any scale.
        image: (N,), integers: the image of each location.
        position: (N, axes), the coordinates of each location in its image.
        output: scalar, float32 or float64.

    Raises:
        ValueError: an argument is out of range, the shapes do not match, or there is no location.

    Sources: InfoNCE is from van den Oord et al. 2018, arXiv 1807.03748; its use over locations is from Basak et al.,
    IDEAL, ICASSP 2023, arXiv 2210.15075; the radius is ours.

    >>> import torch
    >>> from nnunet_semcl.losses import DenseContrastiveLoss
    >>> features, image = torch.eye(2), torch.tensor([0, 1])
    >>> position = torch.zeros(2, 3)
    >>> DenseContrastiveLoss(temperature=1.0)(features, features, image, position)  # log(1 + exp(-1))
    tensor(0.3133)
    """

    def __init__(self, temperature: float = 0.2, radius: float = 0.0) -> None:
        super().__init__()
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature must be above zero and finite, not {temperature}")
        if not 0 <= radius < math.inf:
            raise ValueError(f"radius must be at least zero and finite, not {radius}")
        self.temperature = temperature
        self.radius = radius

    @torch.compiler.disable  # a compiler would unroll the loop over tiles for every N
    def forward(self, query: Tensor, key: Tensor, image: Tensor, position: Tensor) -> Tensor:
        n = len(query)
        if query.ndim != 2 or key.shape != query.shape or not n:
            raise ValueError(f"query and key must both be (N, D), not {tuple(query.shape)} and {tuple(key.shape)}")
        if image.shape != (n,) or position.ndim != 2 or len(position) != n:
            raise ValueError(f"image and position must be ({n},) and ({n}, axes) as the query is")
        precise = torch.promote_types(query.dtype, torch.float32)
        with torch.autocast(query.device.type, enabled=False):
            q, k = F.normalize(query.to(precise)), F.normalize(key.detach().to(precise))
            step = tile_rows(q)
            if step == n or are_few(q):
                return self._rows(q, k, image, position, 0).mean()
            tiles = [
                checkpoint(self._rows, q[start : start + step], k, image, position, start, use_reentrant=False)
                for start in range(0, n, step)
            ]
            return torch.cat(tiles).mean()

    def _rows(self, q: Tensor, k: Tensor, image: Tensor, position: Tensor, start: int) -> Tensor:
        """Losses of T locations, starting at `start`: q (T, D), k (N, D) -> (T,)."""
        rows = slice(start, start + len(q))
        close = torch.cdist(position[rows].float(), position.float()) <= self.radius  # (T, N)
        neither = close & (image[rows, None] == image[None])
        neither.diagonal(start).fill_(False)
        similarity = (q @ k.T / self.temperature).masked_fill(neither, -math.inf)
        return F.cross_entropy(similarity, torch.arange(start, rows.stop, device=q.device), reduction="none")
