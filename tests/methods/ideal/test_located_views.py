from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_semcl.methods.ideal.located_views import Box, Geometry, LocatedViews, shared_locations


def drawn(size: tuple[int, ...], dummy: bool, seed: int) -> tuple:
    """Two views of an image whose channels are its coordinates, without intensity augmentation; all of it is inside."""
    np.random.seed(seed)
    torch.manual_seed(seed)
    views = LocatedViews(size, (-np.pi, np.pi), tuple(range(len(size))), dummy)
    views._intensities = lambda **data: data
    image = torch.stack(torch.meshgrid(*(torch.arange(float(c)) for c in views.cut_size), indexing="ij"))
    edges = torch.tensor(views.cut_size)
    return views(image), views(image), Box(torch.zeros_like(edges), edges - 1)


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
    (first, one), (second, other), inside = drawn(size, dummy and len(size) == 3, seed)
    voxels, places, sources = shared_locations(one, other, inside, 50, np.random.default_rng(seed))
    assert len(voxels) == len(places) == len(sources) > 0
    torch.testing.assert_close(first[(slice(None), *voxels.T)].T, sources, atol=1e-3, rtol=0)
    edge = torch.tensor(size) - 1
    within = ((places >= 0) & (places <= edge)).all(dim=1)
    error = (at(second, places) - sources)[within].norm(dim=1)
    assert error.numel()
    assert error.max() < 0.5


def test_locations_are_distinct_and_limited_in_number() -> None:
    (_, one), (_, other), inside = drawn((32, 32), False, 0)
    voxels, places, _ = shared_locations(one, other, inside, 40, np.random.default_rng(0))
    assert len(voxels) == len(voxels.unique(dim=0)) == 40
    assert (voxels - places).abs().max() > 1


@pytest.mark.parametrize("size", [(32, 32), (16, 32, 32)])
def test_no_location_is_outside_the_case(size: tuple[int, ...]) -> None:
    found = 0
    for seed in range(20):
        (_, one), (second, other), inside = drawn(size, False, seed)
        half = Box(inside.first, inside.last // torch.tensor([2, *[1] * (len(size) - 1)]))
        _, places, sources = shared_locations(one, other, half, 500, np.random.default_rng(seed))
        found += len(sources)
        assert (sources[:, 0] <= half.last[0] + 1e-3).all()
        # What is interpolated at a place comes from inside too: the first channel is the first coordinate.
        outside = (second[:1] > half.last[0] + 1e-3).float()
        assert not at(outside, places).any()
    assert found > 20


def test_views_that_share_nothing_give_no_location() -> None:
    (_, one), (_, other), inside = drawn((16, 16), False, 0)
    nothing = Box(inside.last + 1, inside.first)
    locations = shared_locations(one, other, nothing, 10, np.random.default_rng(0))
    assert all(len(part) == 0 for part in locations)


def test_intensities_leave_the_geometry_alone() -> None:
    def view(intensities: bool) -> tuple[torch.Tensor, Geometry]:
        np.random.seed(0)
        torch.manual_seed(0)
        views = LocatedViews((24, 24), (-0.5, 0.5), (0, 1), False)
        if not intensities:
            views._intensities = lambda **data: data
        return views(torch.rand(2, *views.cut_size, generator=torch.Generator().manual_seed(0)))

    (changed, geometry), (plain, expected) = view(True), view(False)
    assert changed.shape == plain.shape == (2, 24, 24)
    assert not torch.equal(changed, plain)
    assert all(torch.equal(a, b) for a, b in zip(geometry, expected, strict=True))
