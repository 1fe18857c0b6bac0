"""nnU-Net's plans: read, inheritance resolved, and checked key by key."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_semcl.errors import InputError
from nnunet_semcl.files.advice import MADE_BY, plan_again, plan_command
from nnunet_semcl.files.intact_cases import RECORD
from nnunet_semcl.files.json_files import check_keys, read_json
from nnunet_semcl.rules import COUNT, FOLDER_NAME, Rule, json_type, number, whole_numbers

# nnU-Net finds a data set by its id in all three folders, and stops if the names differ.
RENAMED = (
    'Give the folder its old name back, or set "dataset_name" in its plans to the new name and rename the folder in '
    "nnUNet_raw and nnUNet_results too."
)
LEAST_STAGES = 3  # nnU-Net's deep supervision leaves out the coarsest output of its decoder, and 2 stages have only one
NOT_PLANS = ("dataset.json", "dataset_fingerprint.json", "splits_final.json", RECORD)


def read_plans(file: Path, any_version: bool = False) -> dict:
    """Reads the plans of a preprocessed data set.

    Args:
        any_version: accept plans of other nnU-Net versions too, which nnU-Net translates.

    Raises:
        InputError: the file does not exist, is not plans, belongs to a data set of another name, or comes from another
            nnU-Net version.
    """
    if not file.is_file():
        names = sorted(path.stem for path in file.parent.glob("*.json") if path.name not in NOT_PLANS)
        raise InputError(
            f"{file} does not exist, available plans: {', '.join(names) or 'none'}",
            f"Name existing plans with -p, or create them: {plan_command(file)}",
        )
    plans = read_json(file, plan_again(file))
    if not isinstance(plans, dict) or not isinstance(plans.get("configurations"), dict):
        fix = "Name the data set's plans with -p." if file.name in NOT_PLANS else plan_again(file)
        raise InputError(f"{file} has no object 'configurations' and is not plans of nnU-Net", fix)
    fix = plan_again(file, plans.get(MADE_BY))
    for name, own in plans["configurations"].items():
        where = f"{file}, configuration {name}"
        if not isinstance(own, dict):
            raise InputError(f"{where}: {json_type(own)} is not an object of settings", fix)
        if not any_version and "architecture" not in own and "inherits_from" not in own:
            raise InputError(f"{where} has no 'architecture', so another version of nnU-Net made these plans", fix)
    name = plans.get("dataset_name")
    if name != file.parent.name:
        raise InputError(f"{file}, dataset_name: {name!r:.100} is not {file.parent.name!r}, its folder's name", RENAMED)
    return plans


def resolve_configuration(plans: dict, configuration: str, file: Path | str, any_depth: bool = False) -> dict:
    """A configuration together with what it inherits.

    Args:
        file: the plans file, for errors.
        any_depth: accept a network that is too shallow for deep supervision too.

    Raises:
        InputError: nnU-Net cannot resolve it, or see `check_configuration` and `check_depth`.
    """
    where = f"{file}, configuration {configuration}"
    fix = plan_again(Path(file), plans.get(MADE_BY), or_fix=True)
    try:
        resolved = PlansManager(plans).get_configuration(configuration).configuration
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise InputError(
            f"{where}: nnU-Net cannot read it ({problem})",
            f"A configuration is complete, or inherits from a complete one. {fix}",
        ) from problem
    check_configuration(resolved, where, fix)
    if not any_depth:
        check_depth(resolved, where)
    return resolved


def check_configuration(configuration: dict, where: str, fix: str) -> None:
    """Checks that a configuration, its inheritance resolved, can be trained.

    Args:
        where: file and name of the configuration, for errors.
        fix: the advice of an error.

    Raises:
        InputError: a key is missing, or has a value that no plan has; the message names it.
    """
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


def check_depth(configuration: dict, where: str) -> None:
    """Checks that the network has an output that nnU-Net's deep supervision weights.

    With 2 stages nnU-Net divides 0 by 0, and the loss is NaN from the first step on; with 1 stage it cannot start.

    Args:
        configuration: checked by `check_configuration`.
        where: file and name of the configuration, for errors.

    Raises:
        InputError: the network has too few stages.
    """
    if "architecture" not in configuration:
        return
    stages = len(configuration["architecture"]["arch_kwargs"]["strides"])
    if stages < LEAST_STAGES:
        raise InputError(
            f"{where}: its network has {stages} stage{'s' * (stages > 1)}, but deep supervision needs {LEAST_STAGES}",
            "Train another configuration, or without pretraining and deep supervision: -tr "
            "nnUNetTrainerNoDeepSupervision",
        )


def _is_spacing(value: object, configuration: dict) -> bool:
    above_0 = number(1e-6, 1e6).holds
    return isinstance(value, list) and len(value) == len(configuration["patch_size"]) and all(map(above_0, value))
