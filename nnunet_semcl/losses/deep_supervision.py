"""Outputs and targets with nnU-Net's deep supervision and without it, as one kind of thing."""

from __future__ import annotations

from torch import Tensor

Levels = Tensor | list[Tensor]  # with deep supervision a list from fine to coarse


def levels_of(output: Levels) -> list[Tensor]:
    """From fine to coarse; the only one where there is no deep supervision."""
    return list(output) if isinstance(output, (list, tuple)) else [output]
