"""Copy-paste between patches: an unlabelled one gets a box of a labelled one with its labels, and the other way round
in SemCL's pretraining.

Source: Bai et al., Bidirectional Copy-Paste for Semi-Supervised Medical Image Segmentation, CVPR 2023,
arXiv 2305.00673, who paste boxes of two thirds of each edge.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

EDGE = 2 / 3  # of the patch's edges
SHARE_OF_PAIRS = 0.5  # the others stay as they are, as all patches do in training


def swap_boxes(levels: Sequence[torch.Tensor], rng: np.random.Generator, share: float = SHARE_OF_PAIRS) -> None:
    """Swaps a random box between the patches of a pair, in place; the halves of the batch make the pairs.

    Shape: images and targets of B patches, (B, channels, x, y[, z]), each with edges that are multiples of those of the
    coarsest. A box is whole voxels of that one, so that it is the same box on every level.
    """
    cells = np.min([level.shape[2:] for level in levels], axis=0)
    size = np.maximum(1, np.rint(EDGE * cells)).astype(int)
    pairs, offset = len(levels[0]) // 2, (len(levels[0]) + 1) // 2
    for i in np.flatnonzero(rng.random(pairs) < share):
        start = rng.integers(0, cells - size + 1)
        for level in levels:
            scale = np.array(level.shape[2:]) // cells
            box = tuple(slice(a, b) for a, b in zip(start * scale, (start + size) * scale, strict=True))
            one, other = level[(i, slice(None), *box)], level[(i + offset, slice(None), *box)]
            kept = one.clone()
            one.copy_(other)
            other.copy_(kept)


def pasted(
    labelled: Sequence[torch.Tensor], unlabelled: Sequence[torch.Tensor], rng: np.random.Generator
) -> list[torch.Tensor]:
    """Unlabelled patches, each with a box of a labelled one, which stays as it is.

    Shape: images and targets of B labelled patches, (B, channels, X, Y[, Z]), and the same of B unlabelled ones, which
    are returned.
    """
    levels = [torch.cat(pair) for pair in zip(labelled, unlabelled, strict=True)]
    swap_boxes(levels, rng, share=1)
    return [level[len(labelled[0]) :] for level in levels]
