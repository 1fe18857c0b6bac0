"""What helps against a fault in a data set's files: complete commands, with its id, plans and configurations."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from nnunet_semcl import plans as presets  # type: ignore[attr-defined]  # setup.cfg maps plans/ to this name
from nnunet_semcl.files.datasets import id_of

UNLABELLED = "_unlabelled"  # a folder of unlabelled cases is named by the configuration's data identifier and this
MADE_BY = "nnunet_semcl_plan"  # top-level key that marks plans written by `nnunet-semcl plan`
RESTORE_MODEL = "Restore the complete model folder that nnU-Net wrote."
PLANNERS = {"nnUNetPlans": "ExperimentPlanner"} | {
    f"nnUNetResEncUNet{size}Plans": f"nnUNetPlannerResEnc{size}" for size in ("M", "L", "XL")
}


def preprocess_again(*folders: Path) -> str:
    """How to bring folders of preprocessed cases up to date; the text continues a sentence and ends the message.

    nnU-Net preprocesses all cases of a configuration, never one case. A folder that no plans name it never touches.

    Args:
        folders: of one data set; one folder, or several of labelled cases.
    """
    dataset = folders[0].parent
    users = _users(dataset)
    if folders[0].name.endswith(UNLABELLED):
        return f"run: {unlabelled_command(dataset, *users.get(folders[0].name.removesuffix(UNLABELLED), ()))}"
    left = [folder for folder in folders if folder.name not in users and folder.is_dir()]
    if left and users:
        return f"move {left[0]} away: no plans of the data set name it."
    return _run(dataset, [users[folder.name] for folder in folders if folder.name in users])


def preprocess_all(dataset: Path) -> str:
    """How to preprocess a data set for all its plans; the text continues a sentence, as `preprocess_again`."""
    return _run(dataset, list(_users(dataset).values()))


def _run(dataset: Path, users: list[tuple[str, str]]) -> str:
    configurations: dict[str, list[str]] = {}
    for plans, configuration in users:
        configurations.setdefault(plans, []).append(configuration)
    commands = [preprocess_command(dataset, plans, *names) for plans, names in configurations.items()]
    return f"run: {' && '.join(commands) or plan_command(dataset / 'nnUNetPlans.json')}"


def preprocess_command(dataset: Path, plans_identifier: str, *configurations: str) -> str:
    """The command that preprocesses all cases of configurations."""
    return f"nnUNetv2_preprocess -d {_id(dataset)} -plans_name {plans_identifier} -c {' '.join(configurations)}"


def unlabelled_command(dataset: Path, plans_identifier: str = "nnUNetPlans", configuration: str | None = None) -> str:
    """The command that preprocesses a folder of images without labels; where it is, only the user knows."""
    only = f" -c {configuration}" if configuration else ""
    return f"nnunet-semcl unlabelled -d {_id(dataset)} -p {plans_identifier}{only} -i IMAGES"


def missing_case(data: Path) -> str:
    """What to do if a fold names a case that its folder does not hold."""
    again = preprocess_again(data)
    if data.name.endswith(UNLABELLED):
        return f"To add it, {again}"
    return f"If nnUNet_raw lacks the case, remove it from the fold. Otherwise {again}"


def plan_again(file: Path, made_by: Any = None, or_fix: bool = False) -> str:
    """What to do if plans are broken. nnU-Net's planning reads the old file and keeps parts of it, so it must be gone.

    Args:
        file: the plans.
        made_by: their entry MADE_BY.
        or_fix: whether a user could also correct them.
    """
    if file.name == "plans.json":  # nnU-Net's copy in the folder of a model
        return RESTORE_MODEL
    start = "Fix the plans, or move" if or_fix else "Move"
    return f"{start} the file away and create the plans again: {plan_command(file, made_by)}"


def plan_command(file: Path, made_by: Any = None) -> str:
    """The command that creates plans of this name, and preprocesses for them where that may be missing.

    Args:
        file: the plans.
        made_by: their entry MADE_BY.
    """
    number, name = _id(file.parent), file.stem
    names = {json.loads(preset.read_text())["plans_name"]: preset.stem for preset in _presets()}
    if name in names or made_by:
        source = made_by.get("source_plans_name") if isinstance(made_by, dict) else None
        options = f" -p {source}" if source else ""
        return f"nnunet-semcl plan -d {number} --preset {names.get(name, 'FILE')}{options}"
    if name in PLANNERS:
        options = "" if name == "nnUNetPlans" else f" -pl {PLANNERS[name]}"
    else:
        options = f" -overwrite_plans_name {name}"
    return f"nnUNetv2_plan_and_preprocess -d {number}{options}"


def _presets() -> list[Path]:
    return list(Path(presets.__file__).parent.glob("*.json"))


def _id(dataset: Path) -> int | str:
    return id_of(dataset) or "ID"


def _users(dataset: Path) -> dict[str, tuple[str, str]]:
    """Data identifier -> plans and configuration that use this folder; of several plans, those it is named after."""
    users: dict[str, tuple[str, str]] = {}
    for file in sorted(dataset.glob("*.json")):
        with suppress(OSError, ValueError, AttributeError, KeyError, TypeError):  # another file, or broken plans
            for name, own in json.loads(file.read_text())["configurations"].items():
                identifier = own.get("data_identifier")  # None if it is inherited
                known = users.get(identifier, ("", ""))[0]
                if identifier and (not known or (known != file.stem and identifier.startswith(f"{file.stem}_"))):
                    users[identifier] = (file.stem, name)
    return users
