"""The tiled loss against the plain formula and pytorch-metric-learning."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_semcl.losses import tiles
from nnunet_semcl.losses.dense_contrast import DenseContrastiveLoss


def plain(
    query: torch.Tensor,
    key: torch.Tensor,
    image: torch.Tensor,
    position: torch.Tensor,
    temperature: float,
    radius: float,
) -> torch.Tensor:
    """The formula in the docstring, location by location."""
    q, k = (x / x.norm(dim=1, keepdim=True) for x in (query, key))
    total = torch.zeros((), dtype=query.dtype)
    for i in range(len(q)):
        positive = (q[i] @ k[i] / temperature).exp()
        negatives = sum(
            (q[i] @ k[j] / temperature).exp()
            for j in range(len(q))
            if j != i and (image[i] != image[j] or (position[i] - position[j]).norm() > radius)
        )
        total = total - (positive / (positive + negatives)).log()
    return total / len(q)


def locations(
    n: int, axes: int = 2, images: int = 3, seed: int = 0, dtype: torch.dtype = torch.float64
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    query, key = (torch.randn(n, 5, generator=generator, dtype=dtype) for _ in range(2))
    image = torch.randint(0, images, (n,), generator=generator)
    return query.requires_grad_(), key, image, torch.randint(0, 8, (n, axes), generator=generator).to(dtype)


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(1, 12),
    axes=st.integers(2, 3),
    radius=st.sampled_from((0.0, 1.0, 3.5, 100.0)),
    temperature=st.sampled_from((0.07, 0.2, 1.0)),
    few=st.sampled_from((0, 2048)),
    rows=st.sampled_from((1, 5, 256)),
    seed=st.integers(0, 99),
)
def test_loss_and_gradient_equal_the_plain_formula(
    n: int, axes: int, radius: float, temperature: float, few: int, rows: int, seed: int
) -> None:
    inputs = locations(n, axes, seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "FEW", few)
        patch.setattr(tiles, "ROWS_ON_CPU", rows)
        loss = DenseContrastiveLoss(temperature, radius)(*inputs)
        (gradient,) = torch.autograd.grad(loss, inputs[0])
    expected = plain(*inputs, temperature, radius)
    torch.testing.assert_close(loss, expected)
    if expected.requires_grad and n > 1:
        torch.testing.assert_close(gradient, torch.autograd.grad(expected, inputs[0], allow_unused=True)[0])


def test_without_a_radius_it_equals_ntxent_of_pytorch_metric_learning() -> None:
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    query, key, _, _ = locations(20)
    each = torch.arange(20)
    expected = losses.NTXentLoss(0.2)(query, each, ref_emb=key, ref_labels=each.clone())
    torch.testing.assert_close(DenseContrastiveLoss(0.2)(query, key, each, each[:, None].double()), expected)


def test_keys_get_no_gradient() -> None:
    query, key, image, position = locations(9)
    key.requires_grad_()
    DenseContrastiveLoss()(query, key, image, position).backward()
    assert key.grad is None
    assert query.grad is not None
    assert query.grad.any()


def test_close_locations_in_the_same_image_do_not_count() -> None:
    query, key, image, position = locations(9)
    image[:], position[:] = 0, 0
    assert DenseContrastiveLoss(0.2, radius=1)(query, key, image, position).item() == 0
    image = torch.arange(9)
    assert DenseContrastiveLoss(0.2, radius=1)(query, key, image, position).item() > 0


def test_matching_features_have_a_lower_loss_than_shuffled_ones() -> None:
    query, _, image, position = locations(50)
    loss = DenseContrastiveLoss(0.1)
    image = torch.arange(50)
    assert loss(query, query, image, position) < loss(query, query[torch.randperm(50)], image, position)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_is_computed_in_float32_also_under_autocast(dtype: torch.dtype) -> None:
    query, key, image, position = locations(40, dtype=torch.float32)
    query, key = query.detach().to(dtype), key.to(dtype)
    expected = DenseContrastiveLoss(0.07)(query.double(), key.double(), image, position)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = DenseContrastiveLoss(0.07)(query, key, image, position)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": 0}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"radius": -1}, "radius"),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DenseContrastiveLoss(**change)


def test_shapes_that_do_not_match_are_refused() -> None:
    query, key, image, position = locations(6)
    loss = DenseContrastiveLoss()
    for inputs in ((query, key[1:], image, position), (query[:0], key[:0], image[:0], position[:0])):
        with pytest.raises(ValueError, match="query and key"):
            loss(*inputs)
    for inputs in ((query, key, image[1:], position), (query, key, image, position[:, 0])):
        with pytest.raises(ValueError, match="image and position"):
            loss(*inputs)
