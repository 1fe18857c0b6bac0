"""Further plans beside nnU-Net's own: smaller ones, within the bounds of a preset, or with settings of pretraining."""

import math
import re
from copy import deepcopy
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from nnunet_semcl import plans as presets
from nnunet_semcl.errors import InputError
from nnunet_semcl.files.datasets import find_dataset
from nnunet_semcl.files.json_files import read_json, write_json
from nnunet_semcl.files.plans import read_plans, resolve_configuration
from nnunet_semcl.methods import settings_by_section
from nnunet_semcl.pretraining.settings import MethodSettings

MADE_BY = "nnunet_semcl_plan"  # the top-level key that marks plans as written here
NETWORKS = ("PlainConvUNet", "ResidualEncoderUNet")


@dataclass(frozen=True)
class PlanPreset:
    """Bounds that make nnU-Net's plans small, and settings of pretraining; what is not named stays as it was planned.

    plans_name: what `nnUNetv2_train -p` selects; also the name of the file.
    base_num_features, max_num_features: stage i gets min(base * 2^i, max) features.
    max_convs_per_stage: upper bound of convolutions (PlainConvUNet) or residual blocks (ResidualEncoderUNet) in
        every stage of encoder and decoder.
    max_batch_size_2d, max_batch_size_3d: upper bound of the samples in a batch.
    max_patch_size_2d, max_patch_size_3d: upper bound of the patch along each axis, in voxels (see `smaller_patch`).
    sections: settings of pretraining for every configuration, by the section of their method ("semcl", "ideal", ...);
        in the file each section is a key of its own.
    """

    plans_name: str
    base_num_features: int | None = None
    max_num_features: int | None = None
    max_convs_per_stage: int | None = None
    max_batch_size_2d: int | None = None
    max_batch_size_3d: int | None = None
    max_patch_size_2d: int | None = None
    max_patch_size_3d: int | None = None
    sections: dict[str, dict] = field(default_factory=dict)


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
        raise InputError(
            "--preset",
            f"{name_or_file!r}, which does not exist",
            f"one of: {there_are}",
            "Name one of these, or give the path of a JSON file of your own.",
        )
    values = read_json(file)
    sections = settings_by_section()
    types = {bound.name: int for bound in fields(PlanPreset)} | {"plans_name": str} | dict.fromkeys(sections, dict)
    del types["sections"]
    copy_tiny = "Mend the file; plans/tiny.json is one to copy."
    if isinstance(values, dict):
        values = {key: value for key, value in values.items() if value is not None}  # null is not named
    if not isinstance(values, dict) or "plans_name" not in values:
        raise InputError(f"preset {file}", "no 'plans_name'", f"some of these keys: {', '.join(types)}", copy_tiny)
    for key, value in values.items():
        if key not in types:
            raise InputError(f"preset {file}", f"unknown key {key!r}", f"these keys: {', '.join(types)}", copy_tiny)
        if type(value) is not types[key]:
            raise InputError(f"preset {file}, {key}", f"{value!r}", f"{types[key].__name__}", copy_tiny)
        if types[key] is int and value < 1:
            raise InputError(f"preset {file}, {key}", f"{value}", "at least 1", copy_tiny)
    bounds = {key: value for key, value in values.items() if key not in sections}
    preset = PlanPreset(**bounds, sections={key: values[key] for key in sections if key in values})
    # nnU-Net takes names of result folders apart at every double underscore
    if not re.fullmatch(r"[\w.-]+", preset.plans_name) or "__" in preset.plans_name:
        raise InputError(
            f"preset {file}, plans_name",
            f"{preset.plans_name!r}",
            "letters, digits, '-', '.' and single underscores",
            copy_tiny,
        )
    if preset.max_num_features and preset.base_num_features and preset.max_num_features < preset.base_num_features:
        raise InputError(
            f"preset {file}, max_num_features",
            f"{preset.max_num_features}",
            f"at least base_num_features ({preset.base_num_features})",
            copy_tiny,
        )
    return preset


def smaller_patch(patch_size: list[int], strides: list[list[int]], max_size: int) -> list[int]:
    """The patch cut to `max_size` voxels along each axis, in whole steps of the network's total stride.

    Shape: patch_size (axes,), strides (stages, axes), result (axes,). No axis grows. None falls below two total
    strides, so the bottleneck keeps more than one voxel wherever it had: there `max_size` gives way.
    """
    total_strides = [math.prod(along_axis) for along_axis in zip(*strides, strict=True)]
    return [
        min(size, max(max_size, 2 * total)) // total * total or size
        for size, total in zip(patch_size, total_strides, strict=True)
    ]


def shrink(configuration: dict, preset: PlanPreset) -> dict:
    """Batch size, patch size and architecture of a configuration (its inheritance resolved) within the preset."""
    is_2d = len(configuration["patch_size"]) == 2
    network = deepcopy(configuration["architecture"])
    kwargs = network["arch_kwargs"]
    base, largest = preset.base_num_features, preset.max_num_features or max(kwargs["features_per_stage"])
    kwargs["features_per_stage"] = [
        min(base * 2**stage if base else features, largest)
        for stage, features in enumerate(kwargs["features_per_stage"])
    ]
    for key in ("n_conv_per_stage", "n_blocks_per_stage", "n_conv_per_stage_decoder"):
        if key in kwargs:
            kwargs[key] = [min(number, preset.max_convs_per_stage or number) for number in kwargs[key]]
    batch_size, patch_size = configuration["batch_size"], configuration["patch_size"]
    max_patch_size = (preset.max_patch_size_2d if is_2d else preset.max_patch_size_3d) or max(patch_size)
    return {
        "batch_size": min(batch_size, (preset.max_batch_size_2d if is_2d else preset.max_batch_size_3d) or batch_size),
        "patch_size": smaller_patch(patch_size, kwargs["strides"], max_patch_size),
        "architecture": network,
    }


def write_preset_plans(
    dataset_name_or_id: str, preset_name_or_file: str, plans_identifier: str = "nnUNetPlans"
) -> Path:
    """Writes the preset's variant of nnU-Net's plans beside them, prints what changed, returns the file.

    Data identifiers stay, so nothing has to be preprocessed again. Plans that this function wrote before are
    replaced, any other file of that name is left alone.

    Raises InputError: see `load_preset`, `find_dataset` and MethodSettings.from_plan; no plans, plans of another nnU-Net
    version, a network that is neither PlainConvUNet nor ResidualEncoderUNet, or a file in the way that was not
    written here.
    """
    preset = load_preset(preset_name_or_file)
    folder = find_dataset(dataset_name_or_id)
    source = folder / f"{plans_identifier}.json"
    plans = read_plans(source)
    target = folder / f"{preset.plans_name}.json"
    if target == source or (target.exists() and MADE_BY not in read_json(target)):
        raise InputError(
            str(target),
            "the plans to start from" if target == source else "a file of another origin",
            "no file, or one that this command wrote",
            "Choose another plans_name in a preset of your own.",
        )
    before = {name: resolve_configuration(plans, name, source) for name in plans["configurations"]}
    for name, configuration in before.items():
        network = configuration["architecture"]["network_class_name"].rsplit(".", 1)[-1]
        if network not in NETWORKS:
            raise InputError(
                f"{source}, configuration {name}",
                f"the network {network}",
                " or ".join(NETWORKS),
                "Only nnU-Net's own networks can be made smaller by a preset.",
            )

    after = {name: shrink(configuration, preset) for name, configuration in before.items()}
    smaller = {
        **deepcopy(plans),
        "plans_name": preset.plans_name,
        MADE_BY: {"source_plans_name": plans_identifier, "preset": asdict(preset)},
    }
    print(f"{folder.name}: {plans_identifier} -> {preset.plans_name}")
    for name, own in smaller["configurations"].items():
        # an heir with strides of its own may need another patch than its parent's
        inherited = after.get(own.get("inherits_from"), {})
        changed = {key: value for key, value in after[name].items() if key in own or value != inherited.get(key)}
        own.update(changed)
        for section, values in preset.sections.items():
            own[section] = values
            planned = ConfigurationManager({**before[name], **after[name], section: values})
            MethodSettings.by_section[section].from_plan(planned, name)
        if changed:
            _print_changes(name, before[name], after[name])
        else:
            print(f"\n{name}: as {own['inherits_from']}")
    write_json(smaller, target)
    print(
        f"\nPlans were saved to {target}\n"
        f"Train with them: nnUNetv2_train {dataset_name_or_id} CONFIGURATION FOLD -p {preset.plans_name}"
    )
    return target


def _print_changes(name: str, before: dict, after: dict) -> None:
    def figures(values: dict) -> dict:
        per_stage = {key: value for key, value in values["architecture"]["arch_kwargs"].items() if "per_stage" in key}
        return {"batch_size": values["batch_size"], "patch_size": values["patch_size"], **per_stage}

    print(f"\n{name}:")
    for key, value in figures(after).items():
        old = figures(before)[key]
        print(f"  {key}: {old} -> {value}" if value != old else f"  {key}: {old} (kept)")
