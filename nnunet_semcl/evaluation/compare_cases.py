"""Measures the predictions of two or more sides case by case, prints a table and writes the report."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
from tqdm import tqdm

from nnunet_semcl.errors import InputError, first_names
from nnunet_semcl.evaluation.comparison import Comparison
from nnunet_semcl.evaluation.comparison_report import as_text, write_report
from nnunet_semcl.evaluation.dataset_iou import Overlaps, dataset_iou, overlaps_of
from nnunet_semcl.evaluation.metrics import Measures, measures_of
from nnunet_semcl.evaluation.overlay import draw_overlay
from nnunet_semcl.files.groups import check_group, group_of
from nnunet_semcl.files.segmentations import find_segmentations
from nnunet_semcl.process_pool import ProcessPool

BACKGROUND = "background"  # nnU-Net's name for the label 0
DRAWN = 2  # cases that gained most, and as many that lost most


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


def compare_cases(
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
    truth = find_segmentations(truth_folder, ending)
    everywhere = set.intersection(*map(set, sides.values()), set(truth))
    for name, files in [*sides.items(), (str(truth_folder), truth)]:
        missing = sorted(set.union(*map(set, sides.values())) - set(files))
        if missing:
            sentence = f"Left out, since {name} lacks them: {len(missing)} cases ({first_names(missing)})."
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
        if name not in (BACKGROUND, "ignore")
    }
    reader = determine_reader_writer_from_dataset_json(dataset_json, str(truth[cases[0]]), verbose=False)
    measure = partial(
        _measure, reader=reader, classes=classes, ignore=dataset_json["labels"].get("ignore"), mm=options.tolerance
    )
    jobs = [(truth[case], [files[case] for files in sides.values()]) for case in cases]
    try:
        with ProcessPool(options.processes) as pool:
            measured = list(tqdm(pool.map(measure, jobs), "Measuring cases", len(jobs), disable=None))
    except BrokenProcessPool as error:
        raise InputError(
            f"-np {options.processes}: a process was killed, probably because memory ran out",
            "Run the command again with a smaller -np.",
        ) from error
    values = {
        name: {case: of_sides[number][0] for case, of_sides in zip(cases, measured, strict=True)}
        for number, name in enumerate(sides)
    }
    comparison = Comparison(values, options.group)
    iou = dataset_iou({name: [of[number][1] for of in measured] for number, name in enumerate(sides)}, BACKGROUND)
    units = len({group_of(case, options.group) for case in cases})
    about.append(
        f"{len(cases)} cases{f' of {units} groups' if options.group else ''}; surface Dice within "
        f"{options.tolerance:g} mm."
    )
    print("\n".join(("", *about, "", as_text(comparison, iou))))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.output.parent, prefix=f".{options.output.name}.") as temporary:
        folder = Path(temporary, "report")
        folder.mkdir()
        pictures = _pictures(comparison, sides, truth, images, ending, classes, Path(temporary)) if images else {}
        write_report(comparison, iou, about, pictures, folder)
        os.replace(folder, options.output)
    print(f"Report: {options.output / 'index.html'}, report.md, cases.csv and iou.csv beside it")


def _measure(
    job: tuple[Path, list[Path]], reader: type, classes: dict[str, tuple[int, ...]], ignore: int | None, mm: float
) -> list[tuple[dict[str, Measures], Overlaps]]:
    """Measures of each side's prediction of a case, and its overlaps with the truth, by class."""
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
        measures = {
            name: measures_of(np.isin(found[0], labels) & annotated, np.isin(true[0], labels), about["spacing"], mm)
            for name, labels in classes.items()
        }
        of_all = {BACKGROUND: (0,), **classes}
        measured.append((measures, overlaps_of(found[0][annotated], true[0][annotated], of_all)))
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


def _listed(spacing: Sequence[float]) -> str:
    return f"({', '.join(f'{length:g}' for length in spacing)})"
