"""splits_final.json: nnU-Net's folds, and "unlabelled" next to "train" and "val" where labels are budgeted."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from nnunet_semcl.errors import InputError
from nnunet_semcl.files.advice import missing_case
from nnunet_semcl.files.json_files import read_json
from nnunet_semcl.rules import json_type

EXAMPLE = '[{"train": ["case_1", "case_2"], "val": ["case_3"]}]'
NNUNET_FOLDS = 5  # of the cross-validation that nnU-Net makes when there is no splits_final.json

Fold = dict[str, Any]
"""An entry of splits_final.json: lists of cases as "train" and "val", and as "unlabelled" where labels are budgeted."""


def read_splits(file: Path) -> list[Fold]:
    """Reads the folds; none where nnU-Net has not made the file yet.

    Raises:
        InputError: the file is not a list of folds, or a fold lacks its list of training or validation cases.
    """
    if not file.is_file():
        return []
    fix = "Fix the file, or move it away: nnU-Net then makes its own split."
    splits = read_json(file, fix)
    if not isinstance(splits, list) or not splits:
        found = "an empty list" if splits == [] else json_type(splits)
        raise InputError(f"{file} contains {found}, not a list of folds with 'train' and 'val'", fix)
    for number, fold in enumerate(splits):
        where = f"{file}, fold {number}"
        if not isinstance(fold, dict):
            raise InputError(f"{where}: {json_type(fold)} is not an object with 'train' and 'val'", fix)
        for side in ("train", "val", *(["unlabelled"] if "unlabelled" in fold else [])):
            names = fold.get(side)
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                found = f"{names!r:.100}" if side in fold else "missing"
                raise InputError(f"{where}: {side!r} must be a list of case names, but is {found}", fix)
    return splits


def check_fold(where: str, fold: Fold, data: Path, cases: Collection[str]) -> None:
    """Checks that nnU-Net can train and validate on the fold.

    Args:
        where: file and number of the fold, for errors.
        data: folder of the preprocessed cases.
        cases: the preprocessed cases.

    Raises:
        InputError: there is no case to train or to validate on, a case is not preprocessed, or a case is both labelled
            and unlabelled.
    """
    for side in ("train", "val"):
        if not fold[side]:
            raise InputError(
                f"{where}: {side!r} contains no case, but must contain one or more", f"Add cases to {side!r}."
            )
        missing = sorted(set(fold[side]) - set(cases))
        if missing:
            raise InputError(
                f"{where}: the case {missing[0]!r} is not preprocessed in {data}",
                missing_case(data),
            )
        both = sorted(set(fold[side]) & set(fold.get("unlabelled", ())))
        if both:
            raise InputError(
                f"{where}: the case {both[0]!r} is both in {side!r} and in 'unlabelled'",
                "Remove it from one of them.",
            )
