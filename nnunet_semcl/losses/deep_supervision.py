"""Treats outputs and targets alike, with nnU-Net's deep supervision and without it."""

from __future__ import annotations

from torch import Tensor

Levels = Tensor | list[Tensor]  # a list, from fine to coarse, with deep supervision


def levels_of(output: Levels | tuple[Tensor, ...]) -> list[Tensor]:
    """The levels from fine to coarse; a single one without deep supervision."""
    return list(output) if isinstance(output, (list, tuple)) else [output]
