from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_semcl.data.views import MAX_ROTATION
from nnunet_semcl.files.cases import UNKNOWN
from nnunet_semcl.methods.semcl.query_views import QueryViews

OBJECT = torch.tensor([1])


@settings(max_examples=20, deadline=None)
@given(
    size=st.sampled_from(((16, 24), (32, 16), (16, 16, 24), (8, 32, 32))), dummy=st.booleans(), seed=st.integers(0, 99)
)
def test_image_and_segmentation_have_the_same_transform(size: tuple[int, ...], dummy: bool, seed: int) -> None:
    dummy = dummy and len(size) == 3
    np.random.seed(seed)
    torch.manual_seed(seed)
    views = QueryViews(size, (-np.pi, np.pi), tuple(range(len(size))), dummy)
    views._intensities = lambda **data: data
    mask = torch.zeros((1, *views.cut_size), dtype=torch.int16)
    middle = tuple(slice(c // 2 - 3, c // 2 + 3) for c in views.cut_size)
    mask[(0, *middle)] = 1
    image, seen = views(mask.float(), mask, OBJECT)
    assert image.shape == seen.shape == (1, *size)
    # The image is the mask itself, so the interpolated image must agree with the mask's nearest class.
    assert ((image > 0.5) == (seen > 0)).float().mean() > 0.99
    assert (seen == 1).any()


def test_views_differ_and_intensities_leave_the_mask_alone() -> None:
    np.random.seed(0)
    torch.manual_seed(0)
    views = QueryViews((24, 24), (-MAX_ROTATION, MAX_ROTATION), (0, 1), False)
    image = torch.rand(2, *views.cut_size)
    mask = torch.ones((1, *views.cut_size), dtype=torch.int16)
    (first, mask_1), (second, mask_2) = views(image, mask, OBJECT), views(image, mask, OBJECT)
    assert not torch.allclose(first, second)
    assert first.shape == (2, 24, 24)
    for seen in (mask_1, mask_2):
        assert set(seen.unique().tolist()) <= {UNKNOWN, 1}


def test_dummy_2d_keeps_slices_apart() -> None:
    views = QueryViews((4, 16, 16), (-np.pi, np.pi), None, True)
    assert views.cut_size[0] == 4
    views._intensities = lambda **data: data
    image = torch.arange(4.0).view(1, 4, 1, 1).expand(1, 4, *views.cut_size[1:]).contiguous()
    seen, _ = views(image, torch.ones_like(image, dtype=torch.int16), OBJECT)
    torch.testing.assert_close(seen[0, :, 8, 8], torch.arange(4.0))


@pytest.mark.parametrize("mirror_axes", [None, ()])
def test_there_is_no_view_if_the_object_is_outside(mirror_axes: tuple[int, ...] | None) -> None:
    views = QueryViews((8, 8), (-0.1, 0.1), mirror_axes, False)
    image = torch.rand(1, *views.cut_size)
    assert views(image, torch.zeros((1, *views.cut_size), dtype=torch.int16), OBJECT) is None
