"""Unlabelled cases: images without labels, and training cases of a fold whose labels are hidden.

The former are preprocessed by the data set's own plans, in a folder that nnU-Net never trains on. Each lies there as
nnU-Net saves a case. Its segmentation is 0 inside the body and -1 outside, no more.
"""

from __future__ import annotations

import json
from pathlib import Path

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from nnunet_semcl.errors import InputError
from nnunet_semcl.files.datasets import channel_names
from nnunet_semcl.files.json_files import read_json
from nnunet_semcl.files.splits import read_splits

SUFFIX = "_unlabelled"  # of the folder, behind the configuration's data identifier
RECORD = "preprocessing.json"  # in the folder: what decided how its cases look
ENDINGS = ("_seg.b2nd", ".b2nd", ".pkl")  # of a case's files, in the order in which they are put in place


def unlabelled_folder(dataset_folder: Path, configuration: ConfigurationManager) -> Path:
    """Where a configuration's unlabelled cases lie, in the data set's folder in nnUNet_preprocessed."""
    return dataset_folder / f"{configuration.data_identifier}{SUFFIX}"


def unlabelled_cases(folder: Path) -> list[str]:
    """The complete cases of the folder, sorted; none where there is no folder.

    nnU-Net's own get_identifiers would count those that were interrupted between two of their files.
    """
    names = {path.name for path in folder.glob("*")}
    cases = (name.removesuffix(".pkl") for name in names if name.endswith(".pkl"))
    return sorted(case for case in cases if all(case + ending in names for ending in ENDINGS))


def hidden_cases(splits_file: Path, fold: int | str) -> list[str]:
    """Training cases of the fold whose labels are not to be looked at: "unlabelled" in its entry of the splits."""
    splits = read_splits(splits_file) if splits_file.is_file() else []
    return splits[fold].get("unlabelled", []) if fold != "all" and fold < len(splits) else []


def check_unlabelled(
    folder: Path, plans: PlansManager, configuration: ConfigurationManager, dataset_json: dict
) -> None:
    """Whether the folder's cases, if there are any, were preprocessed as these plans would do it.

    Raises InputError, naming the keys in which the plans differ.
    """
    if not unlabelled_cases(folder):
        return
    made_with = read_json(folder / RECORD) if (folder / RECORD).is_file() else {}
    if not isinstance(made_with, dict):
        made_with = {}
    wanted = preprocessing_settings(plans, configuration, dataset_json)
    if made_with != wanted:
        differing = sorted(key for key in made_with.keys() | wanted if made_with.get(key) != wanted.get(key))
        raise InputError(
            str(folder),
            f"cases preprocessed with another {', '.join(differing)}" if made_with else f"cases without a {RECORD}",
            f"those of {plans.plans_name}",
            "Move the folder away and preprocess the images again: nnunet-semcl unlabelled",
        )


def preprocessing_settings(plans: PlansManager, configuration: ConfigurationManager, dataset_json: dict) -> dict:
    """All of the plans that a preprocessed case depends on, as JSON gives it back. Patch and network are not."""
    of_configuration = (
        "data_identifier",
        "preprocessor_name",
        "spacing",
        "normalization_schemes",
        "use_mask_for_norm",
        "resampling_fn_data",
        "resampling_fn_data_kwargs",
        "resampling_fn_seg",
        "resampling_fn_seg_kwargs",
    )
    settings = {
        **{key: configuration.configuration[key] for key in of_configuration},
        "transpose_forward": plans.transpose_forward,
        "image_reader_writer": plans.plans["image_reader_writer"],
        "foreground_intensity_properties_per_channel": plans.foreground_intensity_properties_per_channel,
        "channel_names": channel_names(dataset_json),
    }
    return json.loads(json.dumps(settings))
