from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_semcl.data.copy_paste import EDGE, SHARE_OF_PAIRS, pasted, swap_boxes


@settings(max_examples=50, deadline=None)
@given(
    patches=st.integers(1, 7),
    cells=st.lists(st.integers(1, 6), min_size=2, max_size=3),
    factors=st.lists(st.sampled_from((1, 2, 4)), min_size=1, max_size=3),
    seed=st.integers(0, 99),
)
def test_patches_of_a_pair_swap_the_same_box_on_every_level(
    patches: int, cells: list[int], factors: list[int], seed: int
) -> None:
    number = torch.arange(patches).view(-1, 1, *[1] * len(cells))
    levels = [number.repeat(1, 2, *(c * f for c in cells)) for f in (*factors, 1)]  # a voxel holds its patch's number
    swap_boxes(levels, np.random.default_rng(seed))
    for level, factor in zip(levels, factors, strict=False):
        coarse = levels[-1]
        for axis in range(2, coarse.ndim):
            coarse = coarse.repeat_interleave(factor, axis)
        assert torch.equal(level, coarse)
    offset = (patches + 1) // 2
    for i in range(patches // 2):
        one, other = levels[-1][i], levels[-1][i + offset]
        assert torch.equal(one + other, torch.full_like(one, 2 * i + offset))  # what one patch lost, the other has
        assert set(one.unique().tolist()) <= {i, i + offset}
    if patches % 2:
        assert (levels[-1][offset - 1] == offset - 1).all()


@pytest.mark.parametrize("edges", [(9, 12), (6, 9, 12)])
def test_boxes_of_two_thirds_in_half_of_the_pairs_anywhere(edges: tuple[int, ...]) -> None:
    level = torch.zeros(4000, 1, *edges)
    level[2000:] = 1
    pairs = swap_boxes([level], np.random.default_rng(0))
    pasted = level[:2000].flatten(1).mean(1)
    swapped = pasted > 0
    assert pairs == [[i, i + 2000] for i in swapped.nonzero().flatten().tolist()]
    assert 0.4 < swapped.float().mean() < 2 * SHARE_OF_PAIRS - 0.4
    torch.testing.assert_close(pasted[swapped], torch.full_like(pasted[swapped], EDGE ** len(edges)))
    assert level[:2000].sum(0).min() > 0  # every voxel is in some box


def test_the_same_generator_swaps_the_same_boxes() -> None:
    first = torch.arange(4.0).view(4, 1, 1, 1).repeat(1, 1, 8, 8)
    again = first.clone()
    swap_boxes([first], np.random.default_rng(1))
    swap_boxes([again], np.random.default_rng(1))
    assert torch.equal(first, again)


def test_pasting_changes_only_the_boxes_of_unlabelled_patches() -> None:
    labelled = torch.zeros(8, 2, 9, 12), torch.full((8, 1, 9, 12), 3, dtype=torch.int16)
    unlabelled = [torch.ones(8, 2, 9, 12), torch.ones(8, 1, 9, 12, dtype=torch.int64)]
    before = [tensor.clone() for tensor in (*labelled, *unlabelled)]
    image, target = pasted(labelled, unlabelled, np.random.default_rng(0))
    assert all(torch.equal(a, b) for a, b in zip(before, (*labelled, *unlabelled), strict=True))
    assert set(image.unique().tolist()) == {0, 1}
    assert set(target.unique().tolist()) == {1, 3}
    assert (target == 3).flatten(1).any(1).all()  # a box in each patch
    assert torch.equal(image[:, :1] == 0, target == 3)
    assert torch.equal(image[:, :1], image[:, 1:])
