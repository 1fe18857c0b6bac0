"""Arbitrary JSON where users write JSON: it is accepted, or our own error names the file or key."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from nnunet_semcl.commands.plan import load_preset
from nnunet_semcl.errors import InputError
from nnunet_semcl.files.splits import check_fold, read_splits
from nnunet_semcl.methods.ideal.settings import IDEALSettings
from nnunet_semcl.methods.semcl.image_labels import read_image_labels
from nnunet_semcl.methods.semcl.settings import SemCLSettings
from nnunet_semcl.pretraining.settings import MethodSettings

CASES = [f"case_{i}" for i in range(6)]
numbers = st.integers() | st.floats() | st.sampled_from([0, 1, 2, 4, 8, 64, 0.5, 1e-9, 10**400])
JSON = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
FUZZ = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
METHODS: dict[str, type[MethodSettings]] = {"semcl": SemCLSettings, "ideal": IDEALSettings}


def plan(section: str, values: object) -> ConfigurationManager:
    strides = {"strides": [[1, 1], [2, 2], [2, 2]], "features_per_stage": [32, 64, 128]}
    architecture = {"network_class_name": "x", "arch_kwargs": strides, "_kw_requires_import": ()}
    from_plan = {"batch_size": 12, "patch_size": [64, 80], "spacing": [1.5, 0.5], "architecture": architecture}
    return ConfigurationManager(from_plan | {section: values})


def keys(section: str) -> list[str]:
    return list(METHODS[section].from_plan(plan(section, {}), "2d").as_dict())


@pytest.mark.parametrize("section", METHODS)
@FUZZ
@given(data=st.data())
def test_sections_of_the_plans(section: str, data: st.DataObject) -> None:
    known = st.dictionaries(st.sampled_from(keys(section)), JSON, max_size=3)
    values = data.draw(known | st.dictionaries(st.text(max_size=8), JSON, max_size=2) | JSON)
    try:
        config = METHODS[section].from_plan(plan(section, values), "2d")
    except InputError as error:
        assert f'"{section}" of configuration 2d' in str(error)
        return
    assert isinstance(values, dict)
    for key, value in values.items():
        assert config.as_dict()[key] == (tuple(value) if isinstance(value, list) else value)
    finite = [v for v in config.as_dict().values() if isinstance(v, (int, float))]
    assert all(math.isfinite(v) and v <= 1e6 for v in finite)


sides = st.lists(st.sampled_from([*CASES, "other", ""]), max_size=6)
nearly = st.fixed_dictionaries({}, optional={"train": sides | JSON, "val": sides | JSON, "unlabelled": sides | JSON})


@FUZZ
@given(content=st.lists(nearly, max_size=3) | JSON)
def test_splits(content: object, tmp_path: Path) -> None:
    file = tmp_path / "Dataset004_Hippocampus" / "splits_final.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content))
    try:
        folds = read_splits(file)
        for number, fold in enumerate(folds):
            check_fold(f"{file}, fold {number}", fold, file.parent / "nnUNetPlans_2d", CASES)
    except InputError as error:
        assert str(file) in str(error)
        return
    for fold in folds:
        assert fold["train"]
        assert fold["val"]
        assert {*fold["train"], *fold["val"]} <= {*CASES}


@FUZZ
@given(text=st.text(max_size=40) | JSON.map(json.dumps))
def test_splits_that_are_barely_json(text: str, tmp_path: Path) -> None:
    file = tmp_path / "splits_final.json"
    file.write_text(text)
    try:
        read_splits(file)
    except InputError as error:
        assert str(file) in str(error)


@FUZZ
@given(content=st.dictionaries(st.sampled_from([*CASES, "other"]), st.text(max_size=5) | JSON, max_size=4) | JSON)
def test_image_labels(content: object, tmp_path: Path) -> None:
    (tmp_path / "image_labels.json").write_text(json.dumps(content))
    try:
        labels = read_image_labels(tmp_path, set(CASES))
    except InputError as error:
        assert "image_labels.json" in str(error)
        return
    assert labels == content
    assert all(isinstance(label, str) for label in labels.values())


@FUZZ
@given(
    content=st.dictionaries(st.sampled_from(["plans_name", *vars(load_preset("tiny")), *METHODS]), JSON, max_size=4)
    | JSON
)
def test_presets(content: object, tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(content))
    try:
        load_preset(str(file))
    except InputError as error:
        assert "mine.json" in str(error)
