"""`nnunet-semcl compare`: trained models on the cases of their folds, or folders of predictions, case by case."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
from tqdm import tqdm

from nnunet_semcl.errors import InputError
from nnunet_semcl.evaluation.comparison import Comparison
from nnunet_semcl.evaluation.comparison_report import as_text, write_report
from nnunet_semcl.evaluation.metrics import Measures, measures_of
from nnunet_semcl.evaluation.overlay import draw_overlay
from nnunet_semcl.files.datasets import check_dataset_json, find_dataset, read_dataset_json
from nnunet_semcl.files.groups import check_group, group_of
from nnunet_semcl.files.json_files import read_json

DRAWN = 2  # cases that gained most, and as many that lost most
NAMES = 5  # of missing cases


@dataclass(frozen=True)
class Options:
    """How to compare.

    Attributes:
        output: the new folder of the report.
        group: a pattern that finds the patient's name in a case's; None: each case is of its own.
        tolerance: mm, of surface Dice.
        processes: that measure cases.
    """

    output: Path
    group: str | None
    tolerance: float
    processes: int


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
        InputError: fewer than two trainers, a model or fold that is not finished, other labels, or see `_compare`.
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
    about = [f"{preprocessed.name}, {configuration}, {plans_identifier}, fold {', '.join(chosen)}."]
    _compare(sides, preprocessed / "gt_segmentations", images, dataset_json, about, options)


def compare_folders(folders: Sequence[Path], truth: Path, images: Path | None, options: Options) -> None:
    """Compares folders that nnUNetv2_predict has written.

    Args:
        folders: of predictions, with nnU-Net's dataset.json; the first for comparison.
        truth: folder of the true segmentations under the same names.
        images: folder of the images, for pictures.
        options: how to compare.

    Raises:
        InputError: fewer than two folders, a folder without dataset.json, other labels, or see `_compare`.
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
    sides = {folder.name: _files(folder, ending) for folder in folders}
    _compare(sides, truth, images, dataset_json, [f"Truth: {truth.name}."], options)


def _compare(
    sides: dict[str, dict[str, Path]],
    truth_folder: Path,
    images: Path | None,
    dataset_json: dict,
    about: list[str],
    options: Options,
) -> None:
    """Measures all cases, prints a table and writes the report.

    Raises:
        InputError: the report's folder exists; the pattern is wrong; no case is on all sides; a prediction has another
            geometry than the truth.
    """
    if options.output.exists():
        raise InputError(f"{options.output} exists already", "Choose a new folder with -o; nothing is overwritten.")
    check_group(options.group)
    ending = dataset_json["file_ending"]
    truth = _files(truth_folder, ending)
    everywhere = set.intersection(*map(set, sides.values()), set(truth))
    for name, files in [*sides.items(), (str(truth_folder), truth)]:
        missing = sorted(set.union(*map(set, sides.values())) - set(files))
        if missing:
            more = ", ..." if len(missing) > NAMES else ""
            sentence = f"Left out, since {name} lacks them: {len(missing)} cases ({', '.join(missing[:NAMES])}{more})."
            print(sentence)
            about.append(sentence)
    if not everywhere:
        raise InputError(f"no case is in {truth_folder} and in all of {', '.join(sides)}", "Predict the same cases.")
    cases = sorted(everywhere)
    for case in cases:
        group_of(case, options.group)
    classes = {
        name: tuple(np.ravel(value).tolist())
        for name, value in dataset_json["labels"].items()
        if name not in ("background", "ignore")
    }
    reader = determine_reader_writer_from_dataset_json(dataset_json, str(truth[cases[0]]), verbose=False)
    measure = partial(
        _measure, reader=reader, classes=classes, ignore=dataset_json["labels"].get("ignore"), mm=options.tolerance
    )
    jobs = [(truth[case], [files[case] for files in sides.values()]) for case in cases]
    try:
        with ProcessPoolExecutor(options.processes, multiprocessing.get_context("spawn")) as pool:
            measured = list(tqdm(pool.map(measure, jobs), "Measuring cases", len(jobs), disable=None))
    except BrokenProcessPool as error:
        raise InputError(
            f"-np {options.processes}: a process was killed, probably because memory ran out",
            "Run the command again with a smaller -np.",
        ) from error
    values = {
        name: {case: of_sides[number] for case, of_sides in zip(cases, measured, strict=True)}
        for number, name in enumerate(sides)
    }
    comparison = Comparison(values, options.group)
    units = len({group_of(case, options.group) for case in cases})
    about.append(
        f"{len(cases)} cases{f' of {units} groups' if options.group else ''}; surface Dice within "
        f"{options.tolerance:g} mm."
    )
    print("\n".join(("", *about, "", as_text(comparison.rows(), comparison.sides[0]))))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.output.parent, prefix=f".{options.output.name}.") as temporary:
        folder = Path(temporary, "report")
        folder.mkdir()
        pictures = _pictures(comparison, sides, truth, images, ending, classes, Path(temporary)) if images else {}
        write_report(comparison, about, pictures, folder)
        os.replace(folder, options.output)
    print(f"Report: {options.output / 'index.html'}, report.md and cases.csv beside it")


def _measure(
    job: tuple[Path, list[Path]], reader: type, classes: dict[str, tuple[int, ...]], ignore: int | None, mm: float
) -> list[dict[str, Measures]]:
    """Measures of each side's prediction of a case, by class."""
    truth, predictions = job
    true, about = reader().read_seg(str(truth))
    measured = []
    for file in predictions:
        found, about_found = reader().read_seg(str(file))
        if found.shape != true.shape or not np.allclose(about_found["spacing"], about["spacing"], atol=1e-3):
            raise InputError(
                f"{file}: its shape {found.shape[1:]} or spacing {_listed(about_found['spacing'])} differs from that "
                f"of {truth}, {true.shape[1:]} and {_listed(about['spacing'])}",
                "Give predictions of the same images.",
            )
        annotated = true[0] != ignore
        measured.append(
            {
                name: measures_of(np.isin(found[0], labels) & annotated, np.isin(true[0], labels), about["spacing"], mm)
                for name, labels in classes.items()
            }
        )
    return measured


def _pictures(
    comparison: Comparison,
    sides: dict[str, dict[str, Path]],
    truth: dict[str, Path],
    images: Path,
    ending: str,
    classes: dict[str, tuple[int, ...]],
    folder: Path,
) -> dict[str, bytes]:
    """PNG of the cases whose mean Dice rose and fell most from the first side to the last."""
    first, *_, last = comparison.sides
    gain = {
        case: comparison.of_case(last, case, "Dice") - comparison.of_case(first, case, "Dice")
        for case in comparison.cases
    }
    ordered = sorted((case for case in gain if not np.isnan(gain[case])), key=lambda case: gain[case])
    chosen = dict.fromkeys([*ordered[::-1][:DRAWN], *ordered[:DRAWN]])
    labels, dice = _drawn(comparison, classes)
    pictures = {}
    for case in chosen:
        image, picture = images / f"{case}_0000{ending}", folder / "picture.png"
        predictions = {side: files[case] for side, files in sides.items()}
        with suppress(InputError):  # a case whose truth is empty
            if image.is_file():
                draw_overlay(image, truth[case], predictions, labels, dice.get(case, {}), picture)
                pictures[case] = picture.read_bytes()
    return pictures


def _drawn(
    comparison: Comparison, classes: dict[str, tuple[int, ...]]
) -> tuple[dict[str, int], dict[str, dict[str, dict[str, float]]]]:
    """Name -> value of what is drawn, and case -> side -> name -> Dice. Regions share values: these are drawn."""
    if any(len(labels) > 1 for labels in classes.values()):
        return {f"label {value}": value for value in sorted({v for labels in classes.values() for v in labels})}, {}
    values = comparison.values
    dice = {
        case: {side: {name: of["Dice"] for name, of in values[side][case].items()} for side in comparison.sides}
        for case in comparison.cases
    }
    return {name: labels[0] for name, labels in classes.items()}, dice


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
        for case, file in _files(model / f"fold_{fold}" / "validation", ending).items():
            if case in files:
                other = files[case].parent.parent.name.removeprefix("fold_")
                raise InputError(f"folds {other} and {fold} both have the case {case}", "Name other folds with -f.")
            files[case] = file
    return files


def _files(folder: Path, ending: str) -> dict[str, Path]:
    """Case -> file.

    Raises:
        InputError: the folder does not exist, or has none.
    """
    files = {file.name.removesuffix(ending): file for file in sorted(folder.glob(f"*{ending}"))}
    if not files:
        raise InputError(
            f"{folder} {'has no file' if folder.is_dir() else 'does not exist, with files'} *{ending}",
            "Give a folder of segmentations.",
        )
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


def _listed(spacing: Sequence[float]) -> str:
    return f"({', '.join(f'{length:g}' for length in spacing)})"
