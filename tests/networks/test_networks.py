"""The names that the package exports, and the examples in their docstrings."""

import doctest
import importlib

import pytest

from nnunet_semcl import networks

MODULE_OF = {
    "AttentionConv": "attention_stem",
    "DecoderFeatures": "decoder_features",
    "ProjectionHead": "projection_head",
    "TwoDecoders": "two_decoders",
    "VoxelHead": "voxel_head",
    "add_attention_stem": "attention_stem",
    "attention_pool": "projection_head",
    "remove_attention_stem": "attention_stem",
}


def test_the_package_exports_its_public_names() -> None:
    assert sorted(networks.__all__) == sorted(MODULE_OF)
    for name, module in MODULE_OF.items():
        assert getattr(networks, name) is getattr(importlib.import_module(f"nnunet_semcl.networks.{module}"), name)


@pytest.mark.parametrize("module", sorted(set(MODULE_OF.values())))
def test_the_examples_run(module: str) -> None:
    result = doctest.testmod(importlib.import_module(f"nnunet_semcl.networks.{module}"))
    assert result.attempted > 0
    assert result.failed == 0
