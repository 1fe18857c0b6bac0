"""Copy-paste: an unlabelled patch gets a box of a labelled patch with its labels; in SemCL also the other way round.

Source: Bai et al., Bidirectional Copy-Paste for Semi-Supervised Medical Image Segmentation, CVPR 2023,
arXiv 2305.00673. Their boxes too have two thirds of the patch's edges.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

EDGE = 2 / 3  # edge of a box, relative to the patch
SHARE_OF_PAIRS = 0.5  # the other pairs stay unchanged, like all patches in nnU-Net's training


def swap_boxes(
    levels: Sequence[torch.Tensor], rng: np.random.Generator, share: float = SHARE_OF_PAIRS
) -> list[list[int]]:
    """Swaps a random box between the two patches of a pair, in place, and returns these pairs of patches.

    A pair is one patch of the batch's first half and one of the second half.

    Args:
        levels: images and targets of B patches, each (B, channels, x, y[, z]). The edges of each level are multiples of
            the coarsest level's; a box consists of whole voxels of that level, so it is the same box on all of them.
        rng: draws pairs and boxes.
        share: of the pairs, this share swaps boxes.
    """
    cells = np.min([level.shape[2:] for level in levels], axis=0)
    size = np.maximum(1, np.rint(EDGE * cells)).astype(int)
    pairs, offset = len(levels[0]) // 2, (len(levels[0]) + 1) // 2
    swapped = [[i, i + offset] for i in np.flatnonzero(rng.random(pairs) < share).tolist()]
    for i, partner in swapped:
        start = rng.integers(0, cells - size + 1)
        for level in levels:
            scale = np.array(level.shape[2:]) // cells
            edges = zip(start * scale, (start + size) * scale, strict=True)
            box = (slice(None), *(slice(a, b) for a, b in edges))
            one, other = level[i][box], level[partner][box]
            kept = one.clone()
            one.copy_(other)
            other.copy_(kept)
    return swapped


def pasted(
    labelled: Sequence[torch.Tensor], unlabelled: Sequence[torch.Tensor], rng: np.random.Generator
) -> list[torch.Tensor]:
    """Returns the unlabelled patches, each with a box of a labelled patch. The labelled patches stay unchanged.

    Args:
        labelled: images and targets of B labelled patches, each (B, channels, X, Y[, Z]).
        unlabelled: the same of B unlabelled patches.
        rng: draws the boxes.
    """
    levels = [torch.cat(pair) for pair in zip(labelled, unlabelled, strict=True)]
    swap_boxes(levels, rng, share=1)
    return [level[len(labelled[0]) :] for level in levels]
