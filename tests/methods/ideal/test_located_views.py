from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_semcl.methods.ideal.located_views import LocatedViews, shared_locations


def drawn(size: tuple[int, ...], dummy: bool, seed: int, inside: Callable[..., torch.Tensor] | None = None) -> tuple:
    """Two views of an image whose channels are its coordinates, without intensity augmentation."""
    np.random.seed(seed)
    torch.manual_seed(seed)
    views = LocatedViews(size, (-np.pi, np.pi), tuple(range(len(size))), dummy)
    views._intensities = lambda **data: data
    image = torch.stack(torch.meshgrid(*(torch.arange(float(c)) for c in views.cut_size), indexing="ij"))
    inside = torch.ones(1, *views.cut_size, dtype=torch.bool) if inside is None else inside(views.cut_size)
    return views(image, inside), views(image, inside)


def at(features: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Features (C, *size) at places (n, axes), interpolated linearly between voxels: (n, C)."""
    size = torch.tensor(features.shape[1:])
    grid = ((2 * places + 1) / size - 1).flip(1).view(1, -1, *[1] * (len(size) - 1), len(size))
    return torch.nn.functional.grid_sample(features[None], grid, align_corners=False).flatten(2)[0].T


@settings(max_examples=40, deadline=None)
@given(
    size=st.sampled_from(((16, 24), (32, 16), (16, 16, 24), (8, 32, 32))), dummy=st.booleans(), seed=st.integers(0, 999)
)
def test_coordinates_at_shared_locations_agree_within_half_a_voxel(
    size: tuple[int, ...], dummy: bool, seed: int
) -> None:
    (first, *one), (second, *other) = drawn(size, dummy and len(size) == 3, seed)
    voxels, places, sources = shared_locations(one, other, 50, np.random.default_rng(seed))
    assert len(voxels) == len(places) == len(sources) > 0
    torch.testing.assert_close(first[(slice(None), *voxels.T)].T, sources, atol=1e-3, rtol=0)
    edge = torch.tensor(size) - 1
    within = ((places >= 0) & (places <= edge)).all(dim=1)
    error = (at(second, places) - sources)[within].norm(dim=1)
    assert error.numel()
    assert error.max() < 0.5


def test_locations_are_distinct_and_limited_in_number() -> None:
    (_, *one), (_, *other) = drawn((32, 32), False, 0)
    voxels, places, _ = shared_locations(one, other, 40, np.random.default_rng(0))
    assert len(voxels) == len(voxels.unique(dim=0)) == 40
    assert (voxels - places).abs().max() > 1


def test_no_location_is_outside_the_case() -> None:
    def left_half(size: tuple[int, ...]) -> torch.Tensor:
        inside = torch.zeros(1, *size, dtype=torch.bool)
        inside[:, : size[0] // 2] = True
        return inside

    (_, *one), (_, *other) = drawn((32, 32), False, 3, left_half)
    _, _, sources = shared_locations(one, other, 500, np.random.default_rng(0))
    views = LocatedViews((32, 32), (-np.pi, np.pi), (0, 1), False)
    assert 0 < sources[:, 0].max() < views.cut_size[0] // 2


def test_views_that_share_nothing_give_no_location() -> None:
    (_, *one), (_, *other) = drawn((16, 16), False, 0, lambda size: torch.zeros(1, *size, dtype=torch.bool))
    assert all(len(part) == 0 for part in shared_locations(one, other, 10, np.random.default_rng(0)))


def test_intensities_leave_the_coordinates_alone() -> None:
    np.random.seed(0)
    torch.manual_seed(0)
    views = LocatedViews((24, 24), (-0.5, 0.5), (0, 1), False)
    image = torch.rand(2, *views.cut_size)
    inside = torch.ones(1, *views.cut_size, dtype=torch.bool)
    view, source, certain = views(image, inside)
    assert view.shape == (2, 24, 24)
    assert source.shape == (2, 24, 24)
    assert certain.shape == (24, 24)
    assert source.min() >= 0
    assert source.max() <= max(views.cut_size) - 1
