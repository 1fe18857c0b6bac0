"""`nnunet-semcl compare`: trained models on the cases of their folds, or folders of predictions, case by case."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from nnunet_semcl.errors import InputError
from nnunet_semcl.evaluation.compare_cases import Options, compare_cases
from nnunet_semcl.files.datasets import check_dataset_json, find_dataset, read_dataset_json
from nnunet_semcl.files.json_files import read_json
from nnunet_semcl.files.segmentations import find_segmentations


def compare_trainers(
    dataset_name_or_id: str,
    configuration: str,
    trainers: Sequence[str],
    plans_identifier: str,
    folds: Sequence[str] | None,
    options: Options,
) -> None:
    """Compares the predictions that nnU-Net's training made of the validation cases of its folds.

    Args:
        dataset_name_or_id: a data set in nnUNet_preprocessed and nnUNet_results.
        configuration: of the trained models.
        trainers: of the trained models, the first for comparison.
        plans_identifier: of the trained models.
        folds: numbers; None takes those that all trainers have finished.
        options: how to compare.

    Raises:
        InputError: fewer than two trainers, a model or fold that is not finished, other labels, or see `compare_cases`.
    """
    if len(set(trainers)) < 2:
        raise InputError(f"-tr {' '.join(trainers)}: two trainers are compared, or more", "Name at least two.")
    preprocessed = find_dataset(dataset_name_or_id)
    dataset_json = read_dataset_json(preprocessed)
    results = find_dataset(preprocessed.name, "nnUNet_results")
    models = {trainer: results / f"{trainer}__{plans_identifier}__{configuration}" for trainer in trainers}
    finished = {trainer: _finished_folds(model) for trainer, model in models.items()}
    common = sorted(set.intersection(*map(set, finished.values())), key=lambda fold: (len(fold), fold))
    left = sorted(set.union(*map(set, finished.values())) - set(common))
    chosen = list(dict.fromkeys(folds)) if folds else common
    for model in models.values():
        _check_labels(model / "dataset.json", dataset_json)
    if not chosen:
        each = "; ".join(f"{trainer}: {' '.join(of) or 'none'}" for trainer, of in finished.items())
        raise InputError(
            f"{results}: no fold is finished by all trainers in {configuration} with {plans_identifier} ({each})",
            "Finish one with each of them, or correct -tr, -c and -p.",
        )
    for trainer, model in models.items():
        missing = [fold for fold in chosen if fold not in finished[trainer]]
        if missing:
            raise InputError(
                f"{model}: fold {missing[0]} is not finished (finished: {' '.join(finished[trainer]) or 'none'})",
                f"Name finished folds with -f, or finish it: nnUNetv2_train {preprocessed.name} {configuration} "
                f"{missing[0]} -tr {trainer} -p {plans_identifier} --c",
            )
    if left and not folds:
        print(f"Left out, since not all trainers have finished them: fold {', '.join(left)}")
    ending = dataset_json["file_ending"]
    sides = {trainer: _validated(model, chosen, ending) for trainer, model in models.items()}
    raw = os.environ.get("nnUNet_raw")
    images = Path(raw, preprocessed.name, "imagesTr") if raw else None
    which = f"fold{'s' if len(chosen) > 1 else ''} {', '.join(chosen)}"
    about = [f"{preprocessed.name}, {configuration}, {plans_identifier}, {which}."]
    compare_cases(sides, preprocessed / "gt_segmentations", images, dataset_json, about, options)


def compare_folders(folders: Sequence[Path], truth: Path, images: Path | None, options: Options) -> None:
    """Compares folders that nnUNetv2_predict has written.

    Args:
        folders: of predictions, with nnU-Net's dataset.json; the first for comparison.
        truth: folder of the true segmentations under the same names.
        images: folder of the images, for pictures.
        options: how to compare.

    Raises:
        InputError: fewer than two folders, a folder without dataset.json, other labels, or see `compare_cases`.
    """
    names = [folder.name for folder in folders]
    if len(set(names)) < 2 or len(set(names)) < len(names):
        raise InputError(
            f"-i {' '.join(map(str, folders))}: two folders of different names are compared, or more",
            "Name at least two.",
        )
    first = folders[0] / "dataset.json"
    if not first.is_file():
        raise InputError(
            f"{first} does not exist, but says what the labels are", "Copy it there from the model's folder."
        )
    dataset_json = check_dataset_json(read_json(first), str(first))
    for folder in folders[1:]:
        if (folder / "dataset.json").is_file():
            _check_labels(folder / "dataset.json", dataset_json)
    ending = dataset_json["file_ending"]
    sides = {folder.name: find_segmentations(folder, ending) for folder in folders}
    compare_cases(sides, truth, images, dataset_json, [f"Truth: {truth.name}."], options)


def _finished_folds(model: Path) -> list[str]:
    return sorted(
        file.parent.parent.name.removeprefix("fold_") for file in model.glob("fold_*/validation/summary.json")
    )


def _validated(model: Path, folds: Sequence[str], ending: str) -> dict[str, Path]:
    """Case -> prediction of the fold that has it for validation.

    Raises:
        InputError: two of the folds have the same case.
    """
    files: dict[str, Path] = {}
    for fold in folds:
        for case, file in find_segmentations(model / f"fold_{fold}" / "validation", ending).items():
            if case in files:
                other = files[case].parent.parent.name.removeprefix("fold_")
                raise InputError(f"folds {other} and {fold} both have the case {case}", "Name other folds with -f.")
            files[case] = file
    return files


def _check_labels(file: Path, expected: dict) -> None:
    """Checks that a model has the labels of the data set.

    Raises:
        InputError: it has others; a model that does not exist is met later.
    """
    if file.is_file() and (labels := check_dataset_json(read_json(file), str(file))["labels"]) != expected["labels"]:
        raise InputError(
            f"{file}: the labels {labels} are not {expected['labels']}", "Compare models of the same labels."
        )
