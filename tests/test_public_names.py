"""What losses/ and networks/ export, and the examples in docstrings: each public name has one that runs."""

from __future__ import annotations

import doctest
import importlib
import sys

import pytest

from nnunet_semcl import errors, losses, networks
from nnunet_semcl.evaluation import statistics

PUBLIC = {
    losses: {
        "BidirectionalConsistencyLoss",
        "DenseContrastiveLoss",
        "MarginalLoss",
        "MemoryContrastLoss",
        "PlaceContrastLoss",
        "SupConLoss",
    },
    networks: {
        "AttentionConv",
        "DecoderFeatures",
        "ProjectionHead",
        "TwoDecoders",
        "VoxelHead",
        "add_attention_stem",
        "attention_pool",
        "remove_attention_stem",
    },
}
EXPORTED = [getattr(package, name) for package, names in PUBLIC.items() for name in sorted(names)]
MODULES = sorted({exported.__module__ for exported in EXPORTED} | {errors.__name__, statistics.__name__})


@pytest.mark.parametrize("package", PUBLIC, ids=lambda package: package.__name__)
def test_the_public_names_are_importable_from_their_room(package: object) -> None:
    assert set(package.__all__) == PUBLIC[package]


@pytest.mark.parametrize(
    "public", [public for public in EXPORTED if isinstance(public, type)], ids=lambda public: public.__name__
)
def test_every_public_class_shows_an_example(public: type) -> None:
    assert doctest.DocTestFinder(recurse=False).find(public, module=sys.modules[public.__module__])[0].examples


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_run(module: str) -> None:
    result = doctest.testmod(importlib.import_module(module))
    assert result.attempted > 0
    assert result.failed == 0
