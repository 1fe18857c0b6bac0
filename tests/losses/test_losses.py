"""The names that the package exports, and the examples in their docstrings."""

import doctest
import importlib

import pytest

from nnunet_semcl import losses

MODULE_OF = {
    "BidirectionalConsistencyLoss": "bidirectional_consistency",
    "DenseContrastiveLoss": "dense_contrast",
    "SupConLoss": "supcon",
}


def test_the_package_exports_its_public_names() -> None:
    assert sorted(losses.__all__) == sorted(MODULE_OF)
    for name, module in MODULE_OF.items():
        assert getattr(losses, name) is getattr(importlib.import_module(f"nnunet_semcl.losses.{module}"), name)


@pytest.mark.parametrize("module", sorted(set(MODULE_OF.values())))
def test_the_examples_run(module: str) -> None:
    result = doctest.testmod(importlib.import_module(f"nnunet_semcl.losses.{module}"))
    assert result.attempted > 0
    assert result.failed == 0
