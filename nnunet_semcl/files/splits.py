"""splits_final.json: nnU-Net's folds, with "unlabelled" beside "train" and "val" where labels are budgeted."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from nnunet_semcl.errors import InputError
from nnunet_semcl.files.json_files import read_json

NNUNET_FOLDS = 5  # nnU-Net's own cross-validation, made where there is no splits_final.json

Fold = dict[str, Any]
"""An entry of splits_final.json: "train" and "val" list cases; where labels are budgeted, "unlabelled" does too."""


def read_splits(file: Path) -> list[Fold]:
    """The folds of the file.

    Raises:
        InputError: it is no list of folds, or a fold lacks the list of its training or validation cases.
    """
    splits = read_json(file)
    fix = "Mend it, or move it away and nnU-Net's own split is made."
    if not isinstance(splits, list) or not splits:
        found = "an empty list" if splits == [] else f"a JSON {type(splits).__name__}"
        raise InputError(str(file), found, "a list with 'train' and 'val' of each fold", fix)
    for number, fold in enumerate(splits):
        where = f"{file}, fold {number}"
        if not isinstance(fold, dict):
            raise InputError(where, f"a JSON {type(fold).__name__}", "an object with 'train' and 'val'", fix)
        for side in ("train", "val", *(["unlabelled"] if "unlabelled" in fold else [])):
            names = fold.get(side)
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise InputError(where, f"no list of case names as {side!r}", "one", fix)
    return splits


def check_fold(where: str, fold: Fold, data: Path, cases: Collection[str]) -> None:
    """Whether nnU-Net can train and validate on the fold.

    Args:
        where: file and number of the fold, for errors.
        cases: that are preprocessed, in the folder `data`.

    Raises:
        InputError: no case to train or to validate on, one that is not preprocessed, or one with labels and without.
    """
    for side in ("train", "val"):
        if not fold[side]:
            raise InputError(where, f"no case in {side!r}", "at least one", f"Move cases to {side!r}.")
        missing = sorted(set(fold[side]) - set(cases))
        if missing:
            raise InputError(
                where,
                f"the case {missing[0]!r}, which is not in {data}",
                "cases that are preprocessed",
                f"Run: nnUNetv2_preprocess -d {int(data.parent.name[7:10])}, or mend the split.",
            )
        both = sorted(set(fold[side]) & set(fold.get("unlabelled", ())))
        if both:
            found = f"the case {both[0]!r} in {side!r} and in 'unlabelled'"
            raise InputError(where, found, "each case in one of them", "Take it out of the other.")
