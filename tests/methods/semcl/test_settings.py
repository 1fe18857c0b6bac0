from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from nnunet_semcl.errors import InputError
from nnunet_semcl.methods.semcl.settings import SemCLSettings


def plan(
    batch_size: int = 12,
    patch_size: Sequence[int] = (128, 160),
    strides: Sequence[Sequence[int]] = ((1, 1), (2, 2), (2, 2)),
    **more: object,
) -> ConfigurationManager:
    architecture = {
        "network_class_name": "x",
        "arch_kwargs": {"strides": strides, "features_per_stage": [32, 64, 128]},
        "_kw_requires_import": (),
    }
    return ConfigurationManager(
        {"batch_size": batch_size, "patch_size": list(patch_size), "architecture": architecture, **more}
    )


@given(
    batch_size=st.integers(1, 300),
    steps=st.lists(st.integers(1, 20), min_size=2, max_size=3),
    stages=st.integers(1, 5),
)
def test_queries_fit_the_strides_and_the_size_of_the_plans_batch(
    batch_size: int, steps: list[int], stages: int
) -> None:
    strides = [[1] * len(steps)] + [[2] * len(steps)] * stages
    patch = [s * 2**stages for s in steps]
    config = SemCLSettings.from_plan(plan(batch_size, patch, strides), "c")
    assert all(q % 2**stages == 0 and 0 < q <= p for q, p in zip(config.query_size, patch, strict=True))
    assert all(q > 2**stages for q, p in zip(config.query_size, patch, strict=True) if p > 2**stages)
    assert config.queries_per_batch >= 4
    budget = batch_size * math.prod(patch)
    assert config.queries_per_batch == 4 or config.queries_per_batch * math.prod(config.query_size) <= budget


def test_large_batches_keep_the_patch_and_small_ones_shrink_it() -> None:
    assert SemCLSettings.from_plan(plan(batch_size=12), "2d").query_size == (128, 160)
    strides = [[1, 1, 1], [1, 2, 2], [2, 2, 2]]
    config = SemCLSettings.from_plan(plan(2, (40, 128, 128), strides), "3d_fullres")
    assert config.query_size == (26, 80, 80)
    assert config.queries_per_batch == 2 * 40 * 128 * 128 // (26 * 80 * 80)


def test_the_plans_section_overrides_single_settings() -> None:
    config = SemCLSettings.from_plan(
        plan(semcl={"objective": "object+voxel", "query_size": [64, 64], "temperature": 0.2}), "2d"
    )
    assert config == SemCLSettings(
        objective="object+voxel",
        shares=None,
        query_size=(64, 64),
        queries_per_batch=config.queries_per_batch,
        learning_rate=0.0025,
        temperature=0.2,
    )
    assert config.as_dict()["query_size"] == (64, 64)


def test_every_setting_has_a_reason() -> None:
    config = SemCLSettings.from_plan(plan(2, semcl={"temperature": 0.2}), "2d")
    assert set(config.reasons) == set(config.as_dict())
    assert all(config.reasons.values())
    assert config.reasons["temperature"] == 'set by "semcl" of configuration 2d'
    assert config.reasons["query_size"] == "the plan's patch 128 x 160, reduced so that a batch holds 8 queries"
    assert SemCLSettings.from_plan(plan(12), "2d").reasons["query_size"] == "the plan's patch"


@given(st.dictionaries(st.text(max_size=12) | st.sampled_from(("query_size", "temperature")),
                       st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers()),
                       max_size=3))  # fmt: skip
def test_any_section_is_accepted_or_refused_by_our_own_error(section: dict[str, object]) -> None:
    try:
        config = SemCLSettings.from_plan(plan(semcl=section), "2d")
    except InputError:
        return
    assert config.temperature > 0
    assert not np.any(np.mod(config.query_size, 4))
