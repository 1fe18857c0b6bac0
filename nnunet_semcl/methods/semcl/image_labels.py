"""Image labels, for example the contrast phase of a CT. A class of the contrast is then object x image label.

Source: Lee et al., IEEE JBHI 27(9) 2023 ("image-wise labels"): the same organ in another phase
is a negative.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from nnunet_semcl.errors import InputError
from nnunet_semcl.files.json_files import read_json
from nnunet_semcl.rules import json_type

FILE = "image_labels.json"


def read_image_labels(raw_dataset: Path, cases: Collection[str]) -> dict[str, str]:
    """Returns case -> image label, from the raw data set's image_labels.json; empty if there is no such file.

    Args:
        raw_dataset: nnUNet_raw/DatasetXXX_Name.
        cases: all cases of the data set, labelled or not. A case without an image label has the label "".

    Raises:
        InputError: the file is not a JSON object of texts, or it names a case that does not exist.
    """
    file = raw_dataset / FILE
    if not file.exists():
        return {}
    labels = read_json(file)
    example = '{"case_1": "portal venous", "case_2": "non-contrast"}'
    if not isinstance(labels, dict):
        raise InputError(
            f"{file}: {json_type(labels)} is not an object of image labels",
            f"Write one such as {example}, or move the file away.",
        )
    for case, label in labels.items():
        if not isinstance(label, str):
            raise InputError(f"{file}, {case}: {label!r} is not a text", f"Write image labels as in {example}.")
        if case not in cases:
            raise InputError(
                f"{file}: {case} is not one of the {len(cases)} preprocessed cases",
                "Correct its name, or remove it.",
            )
    return labels
