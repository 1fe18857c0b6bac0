"""Invalid settings: sections of the plans, and presets."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from refusal import refused

from nnunet_semcl.commands.plan import load_preset
from nnunet_semcl.methods.ideal.settings import IDEALSettings
from nnunet_semcl.methods.semcl.settings import SemCLSettings
from nnunet_semcl.pretraining.settings import MethodSettings

METHODS: dict[str, type[MethodSettings]] = {"semcl": SemCLSettings, "ideal": IDEALSettings}
MANY = 10**400  # JSON allows numbers of any size


def plan(**section: object) -> ConfigurationManager:
    architecture = {
        "network_class_name": "x",
        "arch_kwargs": {"strides": [[1, 1], [2, 2], [2, 2]], "features_per_stage": [32, 64, 128]},
        "_kw_requires_import": (),
    }
    values = {"batch_size": 12, "patch_size": [64, 80], "spacing": [1.5, 0.5], "architecture": architecture}
    return ConfigurationManager(values | section)


@pytest.mark.parametrize(
    ("method", "section", "words"),
    [
        # not an object
        ("semcl", [1], (": a list is not an object of settings. Valid keys: shares",)),
        ("semcl", None, (": null is not an object of settings", "Valid keys")),
        ("ideal", "level", (": a text is not an object of settings. Valid keys: shares",)),
        # keys
        ("semcl", {"temprature": 0.1}, (': unknown key "temprature". Valid keys: ', "temperature")),
        ("semcl", {"Temperature": 0.1}, (': unknown key "Temperature"',)),
        ("semcl", {"reasons": {}}, (': unknown key "reasons"',)),
        ("semcl", {"": 1}, (': unknown key ""',)),
        ("ideal", {"levels": 1}, (': unknown key "levels"', "level")),
        ("ideal", {"query_size": [64, 64]}, (': unknown key "query_size"',)),
        # no effect
        (
            "semcl",
            {"query_size": [64, 80]},
            (', query_size: it has no effect with {"objective": "voxel+place"}', '"object" or'),
        ),
        ("semcl", {"memory": 9}, (', memory: it has no effect with {"objective": "voxel+place"}',)),
        (
            "semcl",
            {"objective": "place", "temperature": 0.2},
            (', temperature: it has no effect with {"objective": "place"}',),
        ),
        (
            "semcl",
            {"segmentation": False, "refine": True},
            (', refine: it has no effect with {"segmentation": false}',),
        ),
        (
            "semcl",
            {"objective": "memory", "segmentation": False, "sure": 0.5},
            (', sure: it has no effect with {"objective": "memory", "segmentation": false}',),
        ),
        (
            "semcl",
            {"segmentation": False, "objective": "object", "copy_paste": True},
            (', copy_paste: it has no effect with {"objective": "object", "segmentation": false}', "set one of them"),
        ),
        ("semcl", {"objective": "place", "contrast_weight": 1}, (", contrast_weight: it has no effect with ", "place")),
        ("semcl", {"objective": "voxel", "place_weight": 1}, (', place_weight: it has no effect with {"objective": ',)),
        # shares
        ("semcl", {"shares": {"pretraining": 0.5}}, (", shares: {'pretraining': 0.5} is not an object", '"coarse"')),
        ("semcl", {"shares": {"coarse": 0.5, "pretraining": 0.6}}, ("together at most 1",)),
        ("semcl", {"shares": {"coarse": -0.1, "pretraining": 0.5}}, ("numbers from 0 on",)),
        ("semcl", {"shares": 0.5}, (", shares: 0.5 is not an object",)),
        ("ideal", {"shares": {"coarse": 0.1, "pretraining": 0.1}}, ('such as {"pretraining": 0.2}',)),
        # numbers
        ("semcl", {"temperature": 0}, (", temperature: 0 is not a number from 0.001 to 1000", "remove the key")),
        ("semcl", {"temperature": "0.1"}, (", temperature: '0.1' is not ",)),
        ("semcl", {"temperature": math.nan}, (", temperature: nan is not ",)),
        ("semcl", {"temperature": 1e-300}, (", temperature: 1e-300 is not ",)),
        ("semcl", {"temperature": None}, (", temperature: None is not ",)),
        ("semcl", {"learning_rate": math.inf}, (", learning_rate: inf is not a number from 1e-08 to 1",)),
        ("semcl", {"learning_rate": MANY}, (", learning_rate: ", "from 1e-08 to 1")),
        ("semcl", {"weight_decay": -1}, (", weight_decay: -1 is not a number from 0 to 1",)),
        ("ideal", {"temperature": 0}, (", temperature: 0 is not a number from 0.001 to 1000",)),
        ("ideal", {"momentum": 1.1}, (", momentum: 1.1 is not a number from 0 to 1",)),
        ("ideal", {"ramp": -0.1}, (", ramp: ", "from 0 to 1")),
        ("ideal", {"radius": -1}, (", radius: -1 is not a number from 0 to 1e+06",)),
        ("ideal", {"radius": math.nan}, (", radius: nan is not ",)),
        ("ideal", {"consistency": "1"}, (", consistency: '1' is not ",)),
        ("ideal", {"consistency": [1]}, (", consistency: [1] is not ",)),
        # whole numbers
        ("semcl", {"queries_per_batch": 3}, (", queries_per_batch: 3 is not a whole number from 4", "two objects")),
        ("semcl", {"queries_per_batch": True}, (", queries_per_batch: True is not ",)),
        ("semcl", {"queries_per_batch": MANY}, (", queries_per_batch: ", "to 65536")),
        ("semcl", {"embedding_dim": 1.5}, (", embedding_dim: 1.5 is not a whole number from 1 to 65536",)),
        ("semcl", {"embedding_dim": 10**9}, (", embedding_dim: 1000000000 is not ", "to 65536")),
        ("semcl", {"voxels": 0}, (", voxels: 0 is not a whole number from 1",)),
        ("ideal", {"level": 2}, (", level: 2 is not a whole number from 0 to 1", "a level of the decoder")),
        ("ideal", {"level": -1}, (", level: -1 is not ",)),
        ("ideal", {"level": True}, (", level: True is not ",)),
        ("ideal", {"patches_per_batch": 1}, (", patches_per_batch: 1 is not ", "other images")),
        ("ideal", {"locations": 0}, (", locations: 0 is not ",)),
        ("ideal", {"locations": {}}, (", locations: {} is not ",)),
        # choices
        ("semcl", {"objective": "pixel"}, (", objective: 'pixel' is not one of voxel, place, voxel+place, memory",)),
        ("semcl", {"objective": "place+voxel"}, (", objective: 'place+voxel' is not one of ", "voxel+place")),
        ("semcl", {"objective": ["voxel"]}, (", objective: ['voxel'] is not ",)),
        ("semcl", {"segmentation": 1}, (", segmentation: 1 is not true or false",)),
        ("semcl", {"copy_paste": "true"}, (", copy_paste: 'true' is not true or false",)),
        ("semcl", {"refine": None}, (", refine: None is not true or false",)),
        ("semcl", {"coarse_model": 3}, (", coarse_model: 3 is not the folder of a model, or null",)),
        # sizes
        ("semcl", {"query_size": [64]}, (", query_size: [64] is not ", "2 whole numbers")),
        ("semcl", {"query_size": [64, 63]}, (", query_size: ", "multiples of the network's strides [4, 4]")),
        ("semcl", {"query_size": 64}, (", query_size: 64 is not ",)),
        ("semcl", {"query_size": [4, 4]}, (", query_size: [4, 4] is not ", "one above them")),
        ("semcl", {"query_size": [64, -64]}, (", query_size: [64, -64] is not ",)),
        ("semcl", {"query_size": [64.0, 64.0]}, (", query_size: [64.0, 64.0] is not ",)),
        ("semcl", {"query_size": [4000, 64]}, (", query_size: ", "at most 4 times the plan's patch 64 x 80")),
    ],
    ids=lambda value: str(value)[:40] if not isinstance(value, tuple) else "",
)
def test_section_of_the_plans(method: str, section: object, words: tuple[str, ...]) -> None:
    with refused(f'"{method}" of configuration 2d', *words):
        METHODS[method].from_plan(plan(**{method: section}), "2d")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ("broken JSON",)),
        ('{"plans_name": "Mine",}', ("broken JSON", "line 1")),
        ('{"plans_name": "A", "plans_name": "B"}', ("broken JSON", "repeated key 'plans_name'")),
        ("[" * 100_000, ("broken JSON", "recursion")),
        ("null", ("no 'plans_name'",)),
        ('"tiny"', ("no 'plans_name'",)),
        ('{"plans_name": null}', ("no 'plans_name'",)),
        ('{"plans_name": ""}', ("plans_name: '' is not", "letters, digits")),
        ('{"plans_name": "my plans"}', ("plans_name: 'my plans' is not",)),
        ('{"plans_name": "Mine", "semcl": []}', ("semcl: [] is not", "object")),
        ('{"plans_name": "Mine", "max_batch_size_2d": -1}', ("max_batch_size_2d: -1", "at least 1")),
        ('{"plans_name": "Mine", "max_patch_size_3d": [64]}', ("max_patch_size_3d: [64] is not", "a whole number")),
        ('{"plans_name": "Mine", "base_num_features": NaN}', ("base_num_features: nan is not", "a whole number")),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_preset(tmp_path: Path, text: str, words: tuple[str, ...]) -> None:
    file = tmp_path / "my preset.json"
    file.write_text(text)
    with refused("my preset.json", *words):
        load_preset(str(file))


def test_a_preset_in_another_encoding(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_bytes(json.dumps({"plans_name": "Größe"}, ensure_ascii=False).encode("latin-1"))
    with refused("mine.json", "broken JSON", "utf-8"):
        load_preset(str(file))
