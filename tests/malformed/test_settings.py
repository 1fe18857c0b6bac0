"""Settings that cannot be: sections of the plans, and presets."""

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

METHODS = {"semcl": SemCLSettings, "ideal": IDEALSettings}
MANY = 10**400  # JSON has no largest number


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
        # what is no section
        ("semcl", [1], ("found list", "an object of settings", "Valid keys: learning_rate")),
        ("semcl", None, ("found NoneType", "an object of settings")),
        ("ideal", "level", ("found str", "an object of settings", "Valid keys: learning_rate")),
        # keys
        ("semcl", {"temprature": 0.1}, ('unknown key "temprature"', "temperature", "Correct or remove it")),
        ("semcl", {"Temperature": 0.1}, ('unknown key "Temperature"',)),
        ("semcl", {"reasons": {}}, ('unknown key "reasons"',)),
        ("semcl", {"": 1}, ('unknown key ""',)),
        ("ideal", {"levels": 1}, ('unknown key "levels"', "level")),
        ("ideal", {"query_size": [64, 64]}, ('unknown key "query_size"',)),
        # numbers
        ("semcl", {"temperature": 0}, ("key temperature", "found 0", "from 0.001 to 1000", "remove the key")),
        ("semcl", {"temperature": "0.1"}, ("key temperature", "found '0.1'")),
        ("semcl", {"temperature": math.nan}, ("key temperature", "found nan")),
        ("semcl", {"temperature": 1e-300}, ("key temperature", "found 1e-300")),
        ("semcl", {"temperature": None}, ("key temperature", "found None")),
        ("semcl", {"learning_rate": math.inf}, ("key learning_rate", "found inf", "from 1e-08 to 1")),
        ("semcl", {"learning_rate": MANY}, ("key learning_rate", "from 1e-08 to 1")),
        ("semcl", {"weight_decay": -1}, ("key weight_decay", "found -1", "from 0 to 1")),
        ("ideal", {"temperature": 0}, ("key temperature", "found 0", "from 0.001 to 1000")),
        ("ideal", {"momentum": 1.1}, ("key momentum", "found 1.1", "from 0 to 1")),
        ("ideal", {"ramp": -0.1}, ("key ramp", "from 0 to 1")),
        ("ideal", {"radius": -1}, ("key radius", "found -1", "from 0 to 1e+06")),
        ("ideal", {"radius": math.nan}, ("key radius", "found nan")),
        ("ideal", {"consistency": "1"}, ("key consistency", "found '1'")),
        ("ideal", {"consistency": [1]}, ("key consistency", "found [1]")),
        # whole numbers
        ("semcl", {"queries_per_batch": 3}, ("key queries_per_batch", "found 3", "from 4", "two objects")),
        ("semcl", {"queries_per_batch": True}, ("key queries_per_batch", "found True")),
        ("semcl", {"queries_per_batch": MANY}, ("key queries_per_batch", "to 65536")),
        ("semcl", {"embedding_dim": 1.5}, ("key embedding_dim", "found 1.5", "a whole number")),
        ("semcl", {"embedding_dim": 10**9}, ("key embedding_dim", "found 1000000000", "to 65536")),
        ("semcl", {"voxels": 0}, ("key voxels", "found 0", "from 1")),
        ("ideal", {"level": 2}, ("key level", "found 2", "from 0 to 1", "a level of the decoder")),
        ("ideal", {"level": -1}, ("key level", "found -1")),
        ("ideal", {"level": True}, ("key level", "found True")),
        ("ideal", {"patches_per_batch": 1}, ("key patches_per_batch", "found 1", "other images")),
        ("ideal", {"locations": 0}, ("key locations", "found 0")),
        ("ideal", {"locations": {}}, ("key locations", "found {}")),
        # choices
        ("semcl", {"objective": "pixel"}, ("key objective", "found 'pixel'", "object, voxel, both")),
        ("semcl", {"objective": ["voxel"]}, ("key objective", "found ['voxel']")),
        ("semcl", {"segmentation": 1}, ("key segmentation", "found 1", "true or false")),
        ("semcl", {"copy_paste": "true"}, ("key copy_paste", "found 'true'", "true or false")),
        ("semcl", {"refine": None}, ("key refine", "found None", "true or false")),
        ("semcl", {"coarse_model": 3}, ("key coarse_model", "found 3", "folder")),
        # sizes
        ("semcl", {"query_size": [64]}, ("key query_size", "found [64]", "2 whole numbers")),
        ("semcl", {"query_size": [64, 63]}, ("key query_size", "multiples of the network's strides [4, 4]")),
        ("semcl", {"query_size": 64}, ("key query_size", "found 64")),
        ("semcl", {"query_size": [4, 4]}, ("key query_size", "found [4, 4]", "one above them")),
        ("semcl", {"query_size": [64, -64]}, ("key query_size", "found [64, -64]")),
        ("semcl", {"query_size": [64.0, 64.0]}, ("key query_size", "found [64.0, 64.0]")),
        ("semcl", {"query_size": [4000, 64]}, ("key query_size", "at most 4 times the plan's patch 64 x 80")),
    ],
    ids=lambda value: str(value)[:40] if not isinstance(value, tuple) else "",
)
def test_section_of_the_plans(method: str, section: object, words: tuple[str, ...]):
    with refused(f'"{method}" of configuration 2d', *words):
        METHODS[method].from_plan(plan(**{method: section}), "2d")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ("broken JSON",)),
        ('{"plans_name": "Mine",}', ("broken JSON", "line 1")),
        ('{"plans_name": "A", "plans_name": "B"}', ("broken JSON", "twice the key 'plans_name'")),
        ("[" * 100_000, ("broken JSON", "recursion")),
        ("null", ("no 'plans_name'",)),
        ('"tiny"', ("no 'plans_name'",)),
        ('{"plans_name": null}', ("no 'plans_name'",)),
        ('{"plans_name": ""}', ("plans_name", "found ''", "letters, digits")),
        ('{"plans_name": "my plans"}', ("plans_name", "found 'my plans'")),
        ('{"plans_name": "Mine", "semcl": []}', ("semcl", "found []", "dict")),
        ('{"plans_name": "Mine", "max_batch_size_2d": -1}', ("max_batch_size_2d", "found -1", "at least 1")),
        ('{"plans_name": "Mine", "max_patch_size_3d": [64]}', ("max_patch_size_3d", "found [64]", "int")),
        ('{"plans_name": "Mine", "base_num_features": NaN}', ("base_num_features", "found nan", "int")),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_preset(tmp_path: Path, text: str, words: tuple[str, ...]):
    file = tmp_path / "my preset.json"
    file.write_text(text)
    with refused("my preset.json", *words):
        load_preset(str(file))


def test_a_preset_that_is_not_text(tmp_path: Path):
    file = tmp_path / "mine.json"
    file.write_bytes(json.dumps({"plans_name": "Größe"}, ensure_ascii=False).encode("latin-1"))
    with refused("mine.json", "broken JSON", "utf-8"):
        load_preset(str(file))
