"""Image labels, e.g. the contrast phase of a CT: with them the contrast's class is object x image label.

Source: Lee et al., IEEE JBHI 27(9) 2023 ("image-wise labels"): the same organ in another phase is a negative.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from nnunet_semcl.errors import InputError
from nnunet_semcl.files.json_files import read_json

FILE = "image_labels.json"


def read_image_labels(raw_dataset: Path, cases: Collection[str]) -> dict[str, str]:
    """Case -> image label, from the raw data set's image_labels.json; empty where there is no such file.

    Args:
        raw_dataset: nnUNet_raw/DatasetXXX_Name.
        cases: all that the data set has, labelled or not. One without an image label counts as having the label "".

    Raises:
        InputError: the file is no JSON object of texts, or names a case that does not exist.
    """
    file = raw_dataset / FILE
    if not file.exists():
        return {}
    labels = read_json(file)
    expected = 'an object like {"case_1": "portal venous", "case_2": "non-contrast"}'
    if not isinstance(labels, dict):
        raise InputError(str(file), f"a JSON {type(labels).__name__}", expected, "Mend it, or move it away.")
    for case, label in labels.items():
        if not isinstance(label, str):
            raise InputError(f"{file}, {case}", repr(label), expected, "Give a text.")
        if case not in cases:
            raise InputError(
                f"{file}, {case}",
                "no such case",
                f"one of the {len(cases)} preprocessed cases",
                "Correct or remove it.",
            )
    return labels
