"""`nnunet-semcl plan`: writes further plans, made smaller by a preset or with its settings for pretraining."""

from __future__ import annotations

import math
import re
from copy import deepcopy
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from nnunet_semcl import plans as presets  # type: ignore[attr-defined]  # setup.cfg maps plans/ to this name
from nnunet_semcl.errors import InputError
from nnunet_semcl.files.advice import MADE_BY
from nnunet_semcl.files.datasets import find_dataset
from nnunet_semcl.files.json_files import read_json, write_json
from nnunet_semcl.files.plans import read_plans, resolve_configuration
from nnunet_semcl.methods import settings_by_section
from nnunet_semcl.pretraining.settings import MethodSettings

NETWORKS = ("PlainConvUNet", "ResidualEncoderUNet")

KIND_NAMES = {int: "a whole number", str: "a text", dict: "an object of settings"}
FIX_VALUE = f"Correct the value. {Path(presets.__file__).with_name('tiny.json')} is an example of a preset."


@dataclass(frozen=True)
class PlanPreset:
    """Upper bounds for nnU-Net's plans, and settings for pretraining. What is not set stays as planned.

    Attributes:
        plans_name: name of the new plans, for `nnUNetv2_train -p`, and of their file.
        base_num_features, max_num_features: stage i gets min(base * 2^i, max) features.
        max_convs_per_stage: upper bound of convolutions (PlainConvUNet) or residual blocks (ResidualEncoderUNet) in
            each stage of encoder and decoder.
        max_batch_size_2d, max_batch_size_3d: upper bound of the batch size.
        max_patch_size_2d, max_patch_size_3d: upper bound of the patch size along each axis, in voxels; see
            `smaller_patch`.
        sections: section of a method ("semcl", "ideal", ...) -> its settings, for every configuration. In the file,
            each section is a top-level key.
    """

    plans_name: str
    base_num_features: int | None = None
    max_num_features: int | None = None
    max_convs_per_stage: int | None = None
    max_batch_size_2d: int | None = None
    max_batch_size_3d: int | None = None
    max_patch_size_2d: int | None = None
    max_patch_size_3d: int | None = None
    sections: dict[str, dict[str, Any]] = field(default_factory=dict)

    def as_file(self) -> dict[str, Any]:
        """The content of the preset's file: the keys that are set, each section as a key."""
        content = asdict(self)
        sections = content.pop("sections")
        return {key: value for key, value in content.items() if value is not None} | sections


def load_preset(name_or_file: str) -> PlanPreset:
    """Loads a preset of the package by its name ("tiny"), or a user's own preset by the path of its JSON file.

    Raises:
        InputError: the preset or file does not exist, is not JSON, has an unknown or missing key, or a value that is
            invalid.
    """
    file = _find_preset(name_or_file)
    values = read_json(file)
    sections = settings_by_section()
    kinds: dict[str, type] = {bound.name: int for bound in fields(PlanPreset)}
    kinds |= {"plans_name": str} | dict.fromkeys(sections, dict)
    del kinds["sections"]
    if isinstance(values, dict):
        values = {key: value for key, value in values.items() if value is not None}  # null means: not set
    if not isinstance(values, dict) or "plans_name" not in values:
        raise InputError(f"preset {file}: there is no 'plans_name'", f"Set it. All keys: {', '.join(kinds)}.")
    for key, value in values.items():
        if key not in kinds:
            raise InputError(f"preset {file}: unknown key {key!r}", f"Use only these keys: {', '.join(kinds)}.")
        if type(value) is not kinds[key]:
            raise InputError(f"preset {file}, {key}: {value!r:.200} is not {KIND_NAMES[kinds[key]]}", FIX_VALUE)
        if isinstance(value, int) and value < 1:
            raise InputError(f"preset {file}, {key}: {value} is less than 1", "Use at least 1, or remove the key.")
    bounds = {key: value for key, value in values.items() if key not in sections}
    preset = PlanPreset(**bounds, sections={key: values[key] for key in sections if key in values})
    _check_preset(preset, file)
    return preset


def _find_preset(name_or_file: str) -> Path:
    folder = Path(presets.__file__).parent
    file = Path(name_or_file) if name_or_file.endswith(".json") else folder / f"{name_or_file}.json"
    if not file.is_file():
        names = ", ".join(sorted(path.stem for path in folder.glob("*.json")))
        raise InputError(
            f"--preset {name_or_file} does not exist (presets: {names})",
            "Name one of these presets, or give the path of your own JSON file.",
        )
    return file


def _check_preset(preset: PlanPreset, file: Path) -> None:
    # nnU-Net splits the names of result folders at every double underscore
    if not re.fullmatch(r"[\w.-]+", preset.plans_name) or "__" in preset.plans_name:
        raise InputError(
            f"preset {file}, plans_name: {preset.plans_name!r} is not a valid name for plans",
            "Use only letters, digits, '-', '.' and single underscores.",
        )
    base, largest = preset.base_num_features, preset.max_num_features
    if base and largest and largest < base:
        raise InputError(
            f"preset {file}, max_num_features: {largest} is less than base_num_features ({base})",
            f"Use at least {base}, or reduce base_num_features.",
        )


def smaller_patch(patch_size: list[int], strides: list[list[int]], max_size: int) -> list[int]:
    """Reduces the patch to at most `max_size` voxels along each axis, as a multiple of the network's total stride.

    No axis grows. An axis keeps at least two total strides if it had them, even if that is more than `max_size`: the
    bottleneck needs more than one voxel.

    Shape:
        patch_size: (axes,). strides: (stages, axes). Result: (axes,).
    """
    total_strides = [math.prod(along_axis) for along_axis in zip(*strides, strict=True)]
    return [
        min(size, max(max_size, 2 * total)) // total * total or size
        for size, total in zip(patch_size, total_strides, strict=True)
    ]


def shrink(configuration: dict[str, Any], preset: PlanPreset) -> dict[str, Any]:
    """Batch size, patch size and architecture of a configuration, reduced to the bounds of the preset.

    Args:
        configuration: with its inheritance resolved.
        preset: the bounds.
    """
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
    """Applies a preset to nnU-Net's plans, saves the result next to them, prints what changed and returns the file.

    Data identifiers stay the same, so nothing has to be preprocessed again. Plans that this command wrote before are
    replaced. Any other existing file is left alone.

    Raises:
        InputError: see `load_preset`, `find_dataset` and `MethodSettings.from_plan`. There are no plans, or they come
            from another version of nnU-Net. A network is neither PlainConvUNet nor ResidualEncoderUNet. The new file
            would replace a file that this command did not write.
    """
    preset = load_preset(preset_name_or_file)
    folder = find_dataset(dataset_name_or_id)
    source = folder / f"{plans_identifier}.json"
    plans = read_plans(source)
    target = folder / f"{preset.plans_name}.json"
    if target == source or (target.exists() and not _is_ours(target)):
        problem, fix = "was not written by this command", "Set"
        if target == source:
            problem, fix = "is the file to start from", "Name other plans with -p, or set"
        raise InputError(
            f"{target} {problem} and cannot be replaced", f"{fix} another plans_name in your own preset file."
        )
    before = {name: resolve_configuration(plans, name, source, any_depth=True) for name in plans["configurations"]}
    for name, configuration in before.items():
        network = configuration["architecture"]["network_class_name"].rsplit(".", 1)[-1]
        if network not in NETWORKS:
            raise InputError(
                f"{source}, configuration {name}: a preset cannot be applied to the network {network}",
                f"Name plans with {' or '.join(NETWORKS)} with -p.",
            )

    after = {name: shrink(configuration, preset) for name, configuration in before.items()}
    smaller = {
        **deepcopy(plans),
        "plans_name": preset.plans_name,
        MADE_BY: {"source_plans_name": plans_identifier, "preset": preset.as_file()},
    }
    print(f"{folder.name}: {plans_identifier} -> {preset.plans_name}")
    for name, own in smaller["configurations"].items():
        # a configuration with other strides than its parent may need another patch
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
            print(f"\n{name}: same as {own['inherits_from']}")
    write_json(smaller, target)
    print(
        f"\nSaved the plans to {target}\n"
        f"Train with them: nnUNetv2_train {dataset_name_or_id} CONFIGURATION FOLD -p {preset.plans_name}"
    )
    return target


def _is_ours(file: Path) -> bool:
    """Whether this command wrote the file."""
    content = read_json(file)
    return isinstance(content, dict) and MADE_BY in content


def _print_changes(name: str, before: dict[str, Any], after: dict[str, Any]) -> None:
    def figures(values: dict[str, Any]) -> dict[str, Any]:
        per_stage = {key: value for key, value in values["architecture"]["arch_kwargs"].items() if "per_stage" in key}
        return {"batch_size": values["batch_size"], "patch_size": values["patch_size"], **per_stage}

    print(f"\n{name}:")
    for key, value in figures(after).items():
        old = figures(before)[key]
        print(f"  {key}: {old} -> {value}" if value != old else f"  {key}: {old} (unchanged)")
