from __future__ import annotations

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from nnunet_semcl.methods.ideal.settings import IDEALSettings


def plan(batch_size: int = 12, **more: object) -> ConfigurationManager:
    architecture = {
        "network_class_name": "x",
        "arch_kwargs": {"strides": [[1, 1], [2, 2], [2, 2]], "features_per_stage": [32, 64, 128]},
        "_kw_requires_import": (),
    }
    values = {"batch_size": batch_size, "patch_size": [64, 64], "spacing": [1.5, 0.5], "architecture": architecture}
    return ConfigurationManager(values | more)


def test_settings_are_derived_from_the_plan_with_reasons() -> None:
    config = IDEALSettings.from_plan(plan(), "2d")
    assert (config.patches_per_batch, config.locations, config.radius) == (12, 85, 2.0)
    assert config.learning_rate == 0.0025
    assert set(config.reasons) == set(config.as_dict())
    assert all(config.reasons.values())
    assert IDEALSettings.from_plan(plan(1), "2d").patches_per_batch == 2
    assert IDEALSettings.from_plan(plan(5000), "2d").locations == 1


def test_the_plans_section_overrides_single_settings() -> None:
    config = IDEALSettings.from_plan(plan(ideal={"level": 1, "radius": 0}), "2d")
    assert (config.level, config.radius, config.locations) == (1, 0, 85)
    assert config.reasons["level"] == 'set by "ideal" of configuration 2d'
