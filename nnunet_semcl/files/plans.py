"""nnU-Net's plans: read, inheritance resolved, and checked key by key."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_semcl.errors import InputError
from nnunet_semcl.files.datasets import id_of
from nnunet_semcl.files.intact_cases import RECORD
from nnunet_semcl.files.json_files import check_keys, read_json
from nnunet_semcl.rules import COUNT, FOLDER_NAME, Rule, json_type, number, whole_numbers

NOT_PLANS = ("dataset.json", "dataset_fingerprint.json", "splits_final.json", RECORD)


def read_plans(file: Path, any_version: bool = False) -> dict:
    """Reads the plans of a preprocessed data set.

    Args:
        any_version: accept plans of other nnU-Net versions too, which nnU-Net translates.

    Raises:
        InputError: the file does not exist, is not plans, or comes from another nnU-Net version.
    """
    planning = f"nnUNetv2_plan_and_preprocess -d {id_of(file.parent)}"
    if not file.is_file():
        names = sorted(path.stem for path in file.parent.glob("*.json") if path.name not in NOT_PLANS)
        raise InputError(
            f"{file} does not exist, available plans: {', '.join(names) or 'none'}",
            f"Name existing plans with -p, or create them: {planning}",
        )
    plans = read_json(file)
    if not isinstance(plans, dict) or not isinstance(plans.get("configurations"), dict):
        raise InputError(
            f"{file} has no object 'configurations' and is not plans of nnU-Net", f"Create the plans again: {planning}"
        )
    for name, own in plans["configurations"].items():
        where = f"{file}, configuration {name}"
        if not isinstance(own, dict):
            raise InputError(f"{where}: {json_type(own)} is not an object of settings", f"Create it again: {planning}")
        if not any_version and "architecture" not in own and "inherits_from" not in own:
            raise InputError(
                f"{where} has no 'architecture', so another version of nnU-Net made these plans",
                f"Create the plans again with nnU-Net 2.8: {planning}",
            )
    return plans


def resolve_configuration(plans: dict, configuration: str, file: Path | str) -> dict:
    """A configuration together with what it inherits.

    Args:
        file: the plans file, for errors.

    Raises:
        InputError: nnU-Net cannot resolve it, or see `check_configuration`.
    """
    where = f"{file}, configuration {configuration}"
    try:
        resolved = PlansManager(plans).get_configuration(configuration).configuration
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise InputError(
            f"{where}: nnU-Net cannot read it ({problem})",
            "Fix the plans: a configuration is complete, or inherits from a complete one.",
        ) from problem
    check_configuration(resolved, where)
    return resolved


def check_configuration(configuration: dict, where: str) -> None:
    """Checks that a configuration, its inheritance resolved, can be trained.

    Args:
        where: file and name of the configuration, for errors.

    Raises:
        InputError: a key is missing, or has a value that no plan has; the message names it.
    """
    fix = "Fix the plans, or create them again: nnUNetv2_plan_experiment"
    check_keys(
        configuration,
        where,
        {
            "data_identifier": FOLDER_NAME,
            "batch_size": COUNT,
            "patch_size": whole_numbers((2, 3)),
            "spacing": Rule(
                "a list of numbers above 0, one for each axis of patch_size", lambda v: _is_spacing(v, configuration)
            ),
        },
        fix,
    )
    if "architecture" not in configuration:
        return  # plans of another version, which nnU-Net translates
    network = configuration["architecture"]
    kwargs = network.get("arch_kwargs") if isinstance(network, dict) else None
    if not isinstance(kwargs, dict):
        raise InputError(f"{where}, architecture: {network!r:.200} is not an object with arch_kwargs", fix)
    axes = len(configuration["patch_size"])
    is_stride = whole_numbers((axes,)).holds
    strides = Rule(
        f"a list with {axes} whole numbers above 0 for each stage",
        lambda v: isinstance(v, list) and v != [] and all(map(is_stride, v)),
    )
    check_keys(kwargs, where, {"strides": strides}, fix)
    for size, total in zip(configuration["patch_size"], np.prod(kwargs["strides"], axis=0), strict=True):
        if size % total:
            raise InputError(
                f"{where}, patch_size: {size} is not a multiple of {total}, the product of the strides along its axis",
                fix,
            )
    features = whole_numbers((len(kwargs["strides"]),))
    check_keys(kwargs, where, {"features_per_stage": features}, fix)


def _is_spacing(value: object, configuration: dict) -> bool:
    above_0 = number(1e-6, 1e6).holds
    return isinstance(value, list) and len(value) == len(configuration["patch_size"]) and all(map(above_0, value))
