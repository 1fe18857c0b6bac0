"""Smaller plans beside nnU-Net's own, and a look at what a training is to read before nnU-Net starts it."""

import json
import math
import os
import re
from copy import deepcopy
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_semcl import plans as presets
from nnunet_semcl.errors import InputError

MADE_BY = "nnunet_semcl_plan"  # the top-level key that marks plans as written here
NETWORKS = ("PlainConvUNet", "ResidualEncoderUNet")
NOT_PLANS = ("dataset.json", "dataset_fingerprint.json", "splits_final.json")
NNUNET_FOLDS = 5  # nnU-Net's own cross-validation, made where there is no splits_final.json


@dataclass(frozen=True)
class PlanPreset:
    """Bounds that make nnU-Net's plans small; what they do not name stays as nnU-Net planned it.

    plans_name: what `nnUNetv2_train -p` selects; also the name of the file.
    base_num_features, max_num_features: stage i gets min(base * 2^i, max) features.
    max_convs_per_stage: upper bound of convolutions (PlainConvUNet) or residual blocks (ResidualEncoderUNet) in
        every stage of encoder and decoder.
    max_batch_size_2d, max_batch_size_3d: upper bound of the samples in a batch.
    max_patch_size_2d, max_patch_size_3d: upper bound of the patch along each axis, in voxels (see `smaller_patch`).
    """

    plans_name: str
    base_num_features: int
    max_num_features: int
    max_convs_per_stage: int
    max_batch_size_2d: int
    max_batch_size_3d: int
    max_patch_size_2d: int
    max_patch_size_3d: int


def load_preset(name_or_file: str) -> PlanPreset:
    """A preset of the package by name ("tiny"), or a user's own JSON file by path.

    Raises InputError: no such preset or file, broken JSON, unknown or missing key, wrong type, impossible value.
    """
    if name_or_file.endswith(".json"):
        file = Path(name_or_file)
    else:
        file = Path(presets.__file__).with_name(f"{name_or_file}.json")
    if not file.is_file():
        there_are = ", ".join(sorted(path.stem for path in Path(presets.__file__).parent.glob("*.json")))
        raise InputError("--preset", f"{name_or_file!r}, which does not exist", f"one of: {there_are}",
                         "Name one of these, or give the path of a JSON file of your own.")
    values = _read_json(file)
    types = {field.name: field.type for field in fields(PlanPreset)}
    copy_tiny = "Mend the file; plans/tiny.json is one to copy."
    if not isinstance(values, dict) or set(values) != set(types):
        given = set(values) if isinstance(values, dict) else set()
        found = [f"{what} {', '.join(map(repr, sorted(keys)))}" for what, keys in
                 (("unknown key", given - set(types)), ("no", set(types) - given)) if keys]
        raise InputError(f"preset {file}", " and ".join(found), f"these keys: {', '.join(types)}", copy_tiny)
    for key, value in values.items():
        if type(value) is not types[key]:
            raise InputError(f"preset {file}, {key}", f"{value!r}", f"{types[key].__name__}", copy_tiny)
        if types[key] is int and value < 1:
            raise InputError(f"preset {file}, {key}", f"{value}", "at least 1", copy_tiny)
    preset = PlanPreset(**values)
    # nnU-Net takes names of result folders apart at every double underscore
    if not re.fullmatch(r"[\w.-]+", preset.plans_name) or "__" in preset.plans_name:
        raise InputError(f"preset {file}, plans_name", f"{preset.plans_name!r}",
                         "letters, digits, '-', '.' and single underscores", copy_tiny)
    if preset.max_num_features < preset.base_num_features:
        raise InputError(f"preset {file}, max_num_features", f"{preset.max_num_features}",
                         f"at least base_num_features ({preset.base_num_features})", copy_tiny)
    return preset


def smaller_patch(patch_size: list[int], strides: list[list[int]], max_size: int) -> list[int]:
    """The patch cut to `max_size` voxels along each axis, in whole steps of the network's total stride.

    Shape: patch_size (axes,), strides (stages, axes), result (axes,). No axis grows. None falls below two total
    strides, so the bottleneck keeps more than one voxel wherever it had: there `max_size` gives way.
    """
    total_strides = [math.prod(along_axis) for along_axis in zip(*strides, strict=True)]
    return [min(size, max(max_size, 2 * total)) // total * total or size
            for size, total in zip(patch_size, total_strides, strict=True)]


def shrink(configuration: dict, preset: PlanPreset) -> dict:
    """Batch size, patch size and architecture of a configuration (its inheritance resolved) within the preset."""
    is_2d = len(configuration["patch_size"]) == 2
    network = deepcopy(configuration["architecture"])
    kwargs = network["arch_kwargs"]
    kwargs["features_per_stage"] = [min(preset.base_num_features * 2**stage, preset.max_num_features)
                                    for stage in range(kwargs["n_stages"])]
    for key in ("n_conv_per_stage", "n_blocks_per_stage", "n_conv_per_stage_decoder"):
        if key in kwargs:
            kwargs[key] = [min(number, preset.max_convs_per_stage) for number in kwargs[key]]
    return {
        "batch_size": min(configuration["batch_size"],
                          preset.max_batch_size_2d if is_2d else preset.max_batch_size_3d),
        "patch_size": smaller_patch(configuration["patch_size"], kwargs["strides"],
                                    preset.max_patch_size_2d if is_2d else preset.max_patch_size_3d),
        "architecture": network,
    }


def write_smaller_plans(dataset_name_or_id: str, preset_name_or_file: str,
                        plans_identifier: str = "nnUNetPlans") -> Path:
    """Writes the preset's variant of nnU-Net's plans beside them, prints what changed, returns the file.

    Data identifiers stay, so nothing has to be preprocessed again. Plans that this function wrote before are
    replaced, any other file of that name is left alone.

    Raises InputError: see `load_preset` and `find_dataset`; no plans, plans of another nnU-Net version, a network
    that is neither PlainConvUNet nor ResidualEncoderUNet, or a file in the way that was not written here.
    """
    preset = load_preset(preset_name_or_file)
    folder = find_dataset(dataset_name_or_id)
    source = folder / f"{plans_identifier}.json"
    plans = _read_plans(source)
    target = folder / f"{preset.plans_name}.json"
    if target == source or (target.exists() and MADE_BY not in _read_json(target)):
        raise InputError(str(target), "the plans to start from" if target == source else "a file of another origin",
                         "no file, or one that this command wrote",
                         "Choose another plans_name in a preset of your own.")
    before = {name: _resolve(plans, name, source) for name in plans["configurations"]}
    for name, configuration in before.items():
        network = configuration["architecture"]["network_class_name"].rsplit(".", 1)[-1]
        if network not in NETWORKS:
            raise InputError(f"{source}, configuration {name}", f"the network {network}", " or ".join(NETWORKS),
                             "Only nnU-Net's own networks can be made smaller by a preset.")

    after = {name: shrink(configuration, preset) for name, configuration in before.items()}
    smaller = {**deepcopy(plans), "plans_name": preset.plans_name,
               MADE_BY: {"source_plans_name": plans_identifier, "preset": asdict(preset)}}
    print(f"{folder.name}: {plans_identifier} -> {preset.plans_name}")
    for name, own in smaller["configurations"].items():
        # an heir with strides of its own may need another patch than its parent's
        inherited = after.get(own.get("inherits_from"), {})
        changed = {key: value for key, value in after[name].items() if key in own or value != inherited.get(key)}
        own.update(changed)
        if changed:
            _print_changes(name, before[name], after[name])
        else:
            print(f"\n{name}: as {own['inherits_from']}")
    beside = target.with_name(target.name + ".part")
    beside.write_text(json.dumps(smaller, indent=4))
    os.replace(beside, target)
    print(f"\nPlans were saved to {target}\n"
          f"Train with them: nnUNetv2_train {dataset_name_or_id} CONFIGURATION FOLD -p {preset.plans_name}")
    return target


def check_training_input(dataset_name_or_id: str, configuration: str, plans_identifier: str, fold: str) -> None:
    """What nnUNetv2_train is about to read: data set, plans, configuration, preprocessed cases and fold.

    Raises InputError for what nnU-Net would stumble over later with a traceback. A fold beyond splits_final.json is
    allowed, as in nnU-Net (a random 80:20 split), and earns one line of warning.
    """
    folder = find_dataset(dataset_name_or_id)
    source = folder / f"{plans_identifier}.json"
    plans = _read_plans(source, any_version=True)
    if configuration not in plans["configurations"]:
        raise InputError(str(source), f"no configuration {configuration!r}",
                         f"one of: {', '.join(plans['configurations'])}", "Name one of these.")
    data = folder / _resolve(plans, configuration, source)["data_identifier"]
    n_cases = len(list(data.glob("*.pkl")))
    if n_cases == 0:
        raise InputError(str(data), "no preprocessed cases", f"those of configuration {configuration}",
                         f"Run: nnUNetv2_preprocess -d {int(folder.name[7:10])} "
                         f"-plans_name {plans_identifier} -c {configuration}")
    if fold == "all":
        return
    if not re.fullmatch(r"\d+", str(fold)):
        raise InputError("fold", f"{fold!r}", "'all' or a whole number from 0 on", "Give one of these.")
    splits_file = folder / "splits_final.json"
    if splits_file.is_file():
        splits = _read_json(splits_file)
        if not isinstance(splits, list):
            raise InputError(str(splits_file), f"a JSON {type(splits).__name__}",
                             "a list with 'train' and 'val' of each fold",
                             "Mend it, or delete it and nnU-Net makes its own.")
        n_folds = len(splits)
    elif n_cases < NNUNET_FOLDS:
        raise InputError(str(data), f"{n_cases} preprocessed cases and no {splits_file.name}",
                         f"at least {NNUNET_FOLDS} cases for nnU-Net's {NNUNET_FOLDS}-fold split",
                         f"Train with fold all, or write a {splits_file.name} of your own into {folder}.")
    else:
        n_folds = NNUNET_FOLDS
    if int(fold) >= n_folds:
        print(f"WARNING: fold {fold} is not among the {n_folds} folds of {splits_file.name} (0 to {n_folds - 1}): "
              f"nnU-Net will train on a random 80:20 split.")


def find_dataset(dataset_name_or_id: str) -> Path:
    """The folder of a data set in nnUNet_preprocessed, by name (Dataset004_Hippocampus) or id (4, 004).

    Raises InputError: nnUNet_preprocessed not set or not a folder; no such data set; an id that several have.
    """
    value = nnUNet_preprocessed.get()
    if not value or not Path(value).is_dir():
        raise InputError("nnUNet_preprocessed", f"{value!r}, which is no folder" if value else "nothing",
                         "the folder of nnU-Net's preprocessed data",
                         "Set it: export nnUNet_preprocessed=/path/to/nnUNet_preprocessed")
    wanted = str(dataset_name_or_id)
    datasets = sorted(path for path in Path(value).iterdir() if re.match(r"Dataset\d{3}_", path.name) and path.is_dir())
    found = [path for path in datasets
             if path.name == wanted or (wanted.isdecimal() and int(path.name[7:10]) == int(wanted))]
    if len(found) == 1:
        return found[0]
    there_are = ", ".join(path.name for path in found or datasets) or "none yet"
    raise InputError(value, f"{len(found) or 'no'} data sets for {wanted!r}", f"one of: {there_are}",
                     "Give the name of one in full." if found else
                     "Name one of these, or preprocess yours first: nnUNetv2_plan_and_preprocess -d ID")


def _read_plans(file: Path, any_version: bool = False) -> dict:
    planning = f"nnUNetv2_plan_and_preprocess -d {int(file.parent.name[7:10])}"
    if not file.is_file():
        there_are = sorted(path.stem for path in file.parent.glob("*.json") if path.name not in NOT_PLANS)
        raise InputError(str(file), "no such plans", f"one of: {', '.join(there_are) or 'none yet'}",
                         f"Name one of these with -p, or make them: {planning}")
    plans = _read_json(file)
    configurations = plans.get("configurations") if isinstance(plans, dict) else None
    if not isinstance(configurations, dict):
        raise InputError(str(file), "no configurations", "plans made by nnU-Net", f"Make them again: {planning}")
    for name, own in configurations.items():
        if not any_version and "architecture" not in own and "inherits_from" not in own:
            raise InputError(f"{file}, configuration {name}", "no 'architecture'", "plans of nnU-Net 2.8",
                             f"These come from another version; make them again: {planning}")
    return plans


def _resolve(plans: dict, configuration: str, file: Path) -> dict:
    try:
        return PlansManager(plans).get_configuration(configuration).configuration
    except (RuntimeError, ValueError) as problem:
        raise InputError(f"{file}, configuration {configuration}", f"what nnU-Net cannot read ({problem})",
                         "a configuration that is whole, or inherits from one", "Mend the plans.") from problem


def _print_changes(name: str, before: dict, after: dict) -> None:
    def figures(values: dict) -> dict:
        per_stage = {key: value for key, value in values["architecture"]["arch_kwargs"].items() if "per_stage" in key}
        return {"batch_size": values["batch_size"], "patch_size": values["patch_size"], **per_stage}

    print(f"\n{name}:")
    for key, value in figures(after).items():
        old = figures(before)[key]
        print(f"  {key}: {old} -> {value}" if value != old else f"  {key}: {old} (kept)")


def _read_json(file: Path) -> dict | list:
    try:
        return json.loads(file.read_text())
    except ValueError as problem:
        raise InputError(str(file), f"broken JSON ({problem})", "a JSON file", "Mend it or make it again.") from problem
