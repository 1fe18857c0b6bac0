"""Unlabelled cases: images without labels, and training cases of a fold whose labels are hidden.

Images without labels are preprocessed with the data set's own plans, into a folder that nnU-Net never trains on, and
saved as nnU-Net saves a case. Their segmentation is only 0 inside the body and -1 outside.
"""

from __future__ import annotations

import json
from pathlib import Path

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from nnunet_semcl.errors import InputError
from nnunet_semcl.files.advice import UNLABELLED, unlabelled_command
from nnunet_semcl.files.cases import check_images
from nnunet_semcl.files.datasets import channel_names
from nnunet_semcl.files.json_files import read_json
from nnunet_semcl.files.splits import read_splits

RECORD = "preprocessing.json"  # in the folder: the settings that its cases were preprocessed with
ENDINGS = ("_seg.b2nd", ".b2nd", ".pkl")  # a case's files, in the order in which they are written


def unlabelled_folder(dataset_folder: Path, configuration: ConfigurationManager) -> Path:
    """Returns the folder of a configuration's unlabelled cases, within the data set's in nnUNet_preprocessed."""
    return dataset_folder / f"{configuration.data_identifier}{UNLABELLED}"


def unlabelled_cases(folder: Path) -> list[str]:
    """Returns the complete cases of the folder, sorted; none if the folder does not exist.

    nnU-Net's own get_identifiers would also count a case whose preprocessing was interrupted between two files.
    """
    names = {path.name for path in folder.glob("*")}
    cases = (name.removesuffix(".pkl") for name in names if name.endswith(".pkl"))
    return sorted(case for case in cases if all(case + ending in names for ending in ENDINGS))


def hidden_cases(splits_file: Path, fold: int | str) -> list[str]:
    """Returns the fold's training cases whose labels must not be opened: the fold's "unlabelled" in the splits."""
    splits = read_splits(splits_file)
    if isinstance(fold, str) or fold >= len(splits):
        return []
    return splits[fold].get("unlabelled", [])


def unlabelled_images(
    dataset: Path, fold: int | str, own: ConfigurationManager, other: ConfigurationManager | None = None
) -> dict[str, Path]:
    """Returns case -> image file without extension: images without labels, and the fold's cases with hidden labels.

    Args:
        dataset: the data set's folder in nnUNet_preprocessed.
        fold: of the training.
        own: the configuration that trains, whose folder says which images there are.
        other: the configuration that the files belong to, if it is another one.

    Raises:
        InputError: an image is missing.
    """
    configuration = own if other is None else other
    given = unlabelled_cases(unlabelled_folder(dataset, own))
    images = {case: unlabelled_folder(dataset, configuration) / case for case in given}
    hidden = hidden_cases(dataset / "splits_final.json", fold)
    images |= {case: dataset / configuration.data_identifier / case for case in hidden}
    check_images(images, "unlabelled")
    return images


def check_unlabelled(
    folder: Path, plans: PlansManager, configuration: ConfigurationManager, dataset_json: dict
) -> None:
    """Checks that the folder's cases, if any, were preprocessed with the same settings as in these plans.

    Raises:
        InputError: they were not; the message names the settings that differ.
    """
    if not unlabelled_cases(folder):
        return
    data = configuration.data_identifier
    names = (name for name, own in plans.plans["configurations"].items() if own.get("data_identifier") == data)
    command = unlabelled_command(folder.parent, plans.plans_name, next(names, None))
    fix = f"Move the folder away, then run: {command}"
    made_with = read_json(folder / RECORD, fix) if (folder / RECORD).is_file() else {}
    if not isinstance(made_with, dict):
        made_with = {}
    wanted = preprocessing_settings(plans, configuration, dataset_json)
    if made_with != wanted:
        differing = sorted(key for key in made_with.keys() | wanted if made_with.get(key) != wanted.get(key))
        problem = (
            f"holds cases preprocessed with another {', '.join(differing)} than in {plans.plans_name}"
            if made_with
            else f"holds cases without a {RECORD}, so it is unknown how they were preprocessed"
        )
        raise InputError(f"{folder} {problem}", fix)


def preprocessing_settings(plans: PlansManager, configuration: ConfigurationManager, dataset_json: dict) -> dict:
    """Returns the settings that a preprocessed case depends on, as read back from JSON.

    Patch size, batch size and network are not among them.
    """
    keys = (
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
        **{key: configuration.configuration[key] for key in keys},
        "transpose_forward": plans.transpose_forward,
        "image_reader_writer": plans.plans["image_reader_writer"],
        "foreground_intensity_properties_per_channel": plans.foreground_intensity_properties_per_channel,
        "channel_names": channel_names(dataset_json),
    }
    return json.loads(json.dumps(settings))
