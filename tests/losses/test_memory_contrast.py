from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, normalize

from nnunet_semcl.losses.memory_contrast import MemoryContrastLoss

TEMPERATURE = 0.3


def sample(anchors: int, vectors: int, classes: int, seed: int) -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(seed)
    return (
        torch.randn(anchors, 6, generator=g, dtype=torch.float64, requires_grad=True),
        torch.randint(classes, (anchors,), generator=g),
        torch.randint(2, (anchors,), generator=g),
        torch.randn(vectors, 6, generator=g, dtype=torch.float64),
        torch.randint(classes, (vectors,), generator=g),
        torch.randint(2, (vectors,), generator=g),
    )


def plain(
    z: torch.Tensor, classes: torch.Tensor, parts: torch.Tensor, m: torch.Tensor, *of: torch.Tensor
) -> torch.Tensor:
    """The docstring's formula, anchor by anchor."""
    m_classes, m_parts = of
    terms = []
    for i in range(len(z)):
        s = normalize(z[i], dim=0) @ normalize(m).T / TEMPERATURE
        positives = s[(m_classes == classes[i]) & (m_parts == parts[i])]
        negatives = s[m_classes != classes[i]].exp().sum()
        if len(positives) and negatives > 0:
            terms.append(-(positives.exp() / (positives.exp() + negatives)).log().mean())
    return torch.stack(terms).mean() if terms else z.sum() * 0


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 12), st.integers(0, 30), st.integers(1, 4), st.integers(0, 999))
def test_value_and_gradient_are_the_plain_formulas(anchors: int, vectors: int, classes: int, seed: int) -> None:
    z, *rest = sample(anchors, vectors, classes, seed)
    loss, expected = MemoryContrastLoss(TEMPERATURE)(z, *rest), plain(z, *rest)
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss, z)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, z, allow_unused=True)[0])


def test_with_one_positive_it_is_cross_entropy() -> None:
    """torch's cross-entropy of one positive and the negatives."""
    z, m = torch.randn(1, 5), torch.randn(7, 5)
    classes, parts = torch.tensor([0, 1, 1, 2, 2, 3, 3]), torch.zeros(7, dtype=torch.int64)
    loss = MemoryContrastLoss(TEMPERATURE)(z, classes[:1], parts[:1], m, classes, parts)
    logits = normalize(z) @ normalize(m).T / TEMPERATURE
    torch.testing.assert_close(loss, cross_entropy(logits, torch.tensor([0])))


def test_the_other_part_of_the_same_class_is_neither_positive_nor_negative() -> None:
    z, classes, parts, m, m_classes, m_parts = sample(5, 20, 3, seed=1)
    loss = MemoryContrastLoss(TEMPERATURE)
    anchor = slice(0, 1)
    other = (m_classes == classes[0]) & (m_parts != parts[0])
    assert other.any()
    moved = torch.where(other[:, None], torch.randn_like(m), m)
    arguments = (classes[anchor], parts[anchor])
    assert loss(z[anchor], *arguments, m, m_classes, m_parts) == loss(z[anchor], *arguments, moved, m_classes, m_parts)


def test_the_scale_of_embeddings_and_memory_does_not_matter() -> None:
    z, classes, parts, m, m_classes, m_parts = sample(5, 20, 3, seed=2)
    loss = MemoryContrastLoss(TEMPERATURE)
    torch.testing.assert_close(
        loss(z * 7, classes, parts, m * 0.1, m_classes, m_parts), loss(z, classes, parts, m, m_classes, m_parts)
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    z, classes, parts, m, m_classes, m_parts = sample(8, 30, 3, seed=3)
    loss = MemoryContrastLoss(TEMPERATURE)
    half = loss(z.to(dtype), classes, parts, m.to(dtype), m_classes, m_parts)
    assert half.dtype == torch.float32
    single = loss(z.to(dtype).float(), classes, parts, m.to(dtype).float(), m_classes, m_parts)
    assert half == single
    with torch.autocast("cpu", torch.bfloat16):
        assert loss(z.float(), classes, parts, m.float(), m_classes, m_parts).dtype == torch.float32


def test_the_memory_gets_no_gradient() -> None:
    z, classes, parts, m, m_classes, m_parts = sample(8, 30, 3, seed=4)
    m.requires_grad_()
    MemoryContrastLoss(TEMPERATURE)(z, classes, parts, m, m_classes, m_parts).backward()
    assert m.grad is None
    assert z.grad is not None


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_impossible_temperatures(temperature: float) -> None:
    with pytest.raises(ValueError, match="above zero and finite"):
        MemoryContrastLoss(temperature)
