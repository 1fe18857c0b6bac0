"""nnU-Net's plans: read, their inheritance resolved, and checked key by key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_semcl.errors import InputError
from nnunet_semcl.files.json_files import check_keys, read_json
from nnunet_semcl.rules import COUNT, FOLDER_NAME, Rule, number, whole_numbers

NOT_PLANS = ("dataset.json", "dataset_fingerprint.json", "splits_final.json")


def read_plans(file: Path, any_version: bool = False) -> dict:
    planning = f"nnUNetv2_plan_and_preprocess -d {int(file.parent.name[7:10])}"
    if not file.is_file():
        there_are = sorted(path.stem for path in file.parent.glob("*.json") if path.name not in NOT_PLANS)
        raise InputError(
            str(file),
            "no such plans",
            f"one of: {', '.join(there_are) or 'none yet'}",
            f"Name one of these with -p, or make them: {planning}",
        )
    plans = read_json(file)
    configurations = plans.get("configurations") if isinstance(plans, dict) else None
    if not isinstance(configurations, dict):
        raise InputError(str(file), "no configurations", "plans made by nnU-Net", f"Make them again: {planning}")
    for name, own in configurations.items():
        if not isinstance(own, dict):
            found, fix = f"a JSON {type(own).__name__}", f"Make them again: {planning}"
            raise InputError(f"{file}, configuration {name}", found, "an object of settings", fix)
        if not any_version and "architecture" not in own and "inherits_from" not in own:
            raise InputError(
                f"{file}, configuration {name}",
                "no 'architecture'",
                "plans of nnU-Net 2.8",
                f"These come from another version; make them again: {planning}",
            )
    return plans


def resolve_configuration(plans: dict, configuration: str, file: Path | str) -> dict:
    """A configuration with what it inherits.

    Raises InputError: nnU-Net cannot resolve it, or see `check_configuration`.
    """
    where = f"{file}, configuration {configuration}"
    try:
        resolved = PlansManager(plans).get_configuration(configuration).configuration
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise InputError(
            where,
            f"what nnU-Net cannot read ({problem})",
            "a configuration that is whole, or inherits from one",
            "Mend the plans.",
        ) from problem
    check_configuration(resolved, where)
    return resolved


def check_configuration(configuration: dict, where: str) -> None:
    """Whether a configuration of the plans, its inheritance resolved, can be trained.

    Raises InputError, naming the key: one is missing, or of a kind or size that no plan has.
    """
    fix = "Mend the plans, or make them again: nnUNetv2_plan_experiment"
    check_keys(
        configuration,
        where,
        {
            "data_identifier": FOLDER_NAME,
            "batch_size": COUNT,
            "patch_size": whole_numbers((2, 3)),
            "spacing": Rule("as many numbers above 0 as patch_size has", lambda v: _is_spacing(v, configuration)),
        },
        fix,
    )
    if "architecture" not in configuration:
        return  # of another version, which nnU-Net translates
    network = configuration["architecture"]
    kwargs = network.get("arch_kwargs") if isinstance(network, dict) else None
    if not isinstance(kwargs, dict):
        raise InputError(f"{where}, architecture", f"{network!r:.200}", "an object with arch_kwargs", fix)
    axes = len(configuration["patch_size"])
    of_stage = whole_numbers((axes,)).holds
    strides = Rule(
        f"{axes} whole numbers for each stage", lambda v: isinstance(v, list) and v != [] and all(map(of_stage, v))
    )
    check_keys(kwargs, where, {"strides": strides}, fix)
    for size, total in zip(configuration["patch_size"], np.prod(kwargs["strides"], axis=0), strict=True):
        if size % total:
            found, expected = f"{size} voxels", f"a multiple of the {total} that the strides make"
            raise InputError(f"{where}, patch_size", found, expected, fix)
    features = whole_numbers((len(kwargs["strides"]),))
    check_keys(kwargs, where, {"features_per_stage": features}, fix)


def _is_spacing(value: Any, configuration: dict) -> bool:
    above_0 = number(1e-6, 1e6).holds
    return isinstance(value, list) and len(value) == len(configuration["patch_size"]) and all(map(above_0, value))
