from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, normalize

from nnunet_semcl.losses.place_contrast import PlaceContrastLoss
from nnunet_semcl.losses.supcon import SupConLoss

TEMPERATURE, WIDTH = 0.3, 0.4


def sample(voxels: int, images: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return (
        torch.randn(voxels, 6, generator=g, dtype=torch.float64, requires_grad=True),
        torch.rand(voxels, 3, generator=g, dtype=torch.float64),
        torch.randint(images, (voxels,), generator=g),
    )


def plain(z: torch.Tensor, places: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """The docstring's formula, pair by pair."""
    z = normalize(z)
    total, weights = z.sum() * 0, 0.0
    for i in range(len(z)):
        others = [j for j in range(len(z)) if images[j] != images[i]]
        for j in others:
            weight = math.exp(-(float((places[i] - places[j]).norm()) ** 2) / (2 * WIDTH**2))
            among = torch.stack([z[i] @ z[a] / TEMPERATURE for a in others])
            total = total - weight * (z[i] @ z[j] / TEMPERATURE - among.logsumexp(0))
            weights += weight
    return total / weights if weights else total


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10), st.integers(1, 4), st.integers(0, 999))
def test_value_and_gradient_are_the_plain_formulas(voxels: int, images: int, seed: int) -> None:
    z, *rest = sample(voxels, images, seed)
    loss, expected = PlaceContrastLoss(TEMPERATURE, WIDTH)(z, *rest), plain(z, *rest)
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss, z)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, z)[0])


def test_with_one_near_voxel_it_is_cross_entropy() -> None:
    """torch's cross-entropy of the near voxel among those of the other images."""
    z = torch.randn(6, 5)
    images, places = torch.tensor([0, 1, 1, 2, 2, 2]), torch.arange(6.0)[:, None]
    places[1] = places[0]
    loss = PlaceContrastLoss(TEMPERATURE, 1e-2)(z, places, images)
    similarity = normalize(z) @ normalize(z).T / TEMPERATURE
    of_first = cross_entropy(similarity[0, 1:][None], torch.tensor([0]))
    of_second = cross_entropy(similarity[1, [0, 3, 4, 5]][None], torch.tensor([0]))
    torch.testing.assert_close(loss, (of_first + of_second) / 2)


def test_a_voxel_in_each_image_at_shared_places_is_supervised_contrast() -> None:
    """The same as SupConLoss, which has tests of its own, where each voxel is an image and places are classes."""
    z, classes = torch.randn(8, 5, dtype=torch.float64), torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    loss = PlaceContrastLoss(TEMPERATURE, 1e-2)(z, classes[:, None].double(), torch.arange(8))
    torch.testing.assert_close(loss, SupConLoss(TEMPERATURE)(z, classes))


def test_voxels_of_the_same_image_do_not_count() -> None:
    z, places, images = sample(6, 2, seed=1)
    loss = PlaceContrastLoss(TEMPERATURE, WIDTH)
    assert loss(z, places, torch.zeros(6)) == 0
    assert torch.isfinite(torch.autograd.grad(loss(z, places, torch.zeros(6)), z)[0]).all()
    value = loss(z, places, images)
    torch.testing.assert_close(loss(z, places, 1 - images), value)


def test_far_from_everybody_is_a_differentiable_zero() -> None:
    z, _, images = sample(6, 3, seed=2)
    loss = PlaceContrastLoss(TEMPERATURE, WIDTH)(z, torch.arange(6.0)[:, None] * 1e4, images)
    loss.backward()
    assert loss == 0
    assert z.grad is not None
    assert (z.grad == 0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    z, places, images = sample(8, 3, seed=3)
    loss = PlaceContrastLoss(TEMPERATURE, WIDTH)
    half = loss(z.to(dtype), places.float(), images)
    assert half.dtype == torch.float32
    assert half == loss(z.to(dtype).float(), places.float(), images)
    with torch.autocast("cpu", torch.bfloat16):
        assert loss(z.float(), places.float(), images).dtype == torch.float32


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_impossible_temperatures_and_widths(value: float) -> None:
    with pytest.raises(ValueError, match="temperature must be above zero and finite"):
        PlaceContrastLoss(value, WIDTH)
    with pytest.raises(ValueError, match="width must be above zero and finite"):
        PlaceContrastLoss(TEMPERATURE, value)
