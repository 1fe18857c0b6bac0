"""`nnunet-semcl next`: which unlabelled case to label next."""

from __future__ import annotations

import csv
import glob
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunet_semcl.commands.path import add_trainer_path
from nnunet_semcl.data.pseudo_labels import Prediction
from nnunet_semcl.data.uncertainty import ForegroundFeatures, Uncertainty
from nnunet_semcl.data.unlabelled import check_unlabelled, unlabelled_folder, unlabelled_images
from nnunet_semcl.errors import InputError, first_names
from nnunet_semcl.evaluation.next_cases import NextCase, order_cases
from nnunet_semcl.evaluation.progress import each_case
from nnunet_semcl.evaluation.trained_fold import TrainedFold, find_fold
from nnunet_semcl.evaluation.uncertainty_picture import UnsureSlice, draw_uncertainty
from nnunet_semcl.files.advice import unlabelled_command
from nnunet_semcl.files.cases import open_case
from nnunet_semcl.files.datasets import label_values

TABLE = "next.csv"


def rank_next_cases(
    dataset_name_or_id: str,
    configuration: str,
    trainer: str,
    plans_identifier: str,
    fold: str,
    checkpoint: str,
    device: str,
    number: int,
    output: Path,
) -> list[NextCase]:
    """Ranks the fold's unlabelled cases, prints the first ones, and writes next.csv and their pictures.

    Args:
        dataset_name_or_id, configuration, trainer, plans_identifier, fold, device: see `find_fold`.
        checkpoint: file name in the fold's folder.
        number: of cases to print and to draw.
        output: the new folder, which appears when all is done.

    Returns:
        All unlabelled cases, the one to label first in front.

    Raises:
        InputError: see `find_fold`; the output exists, the checkpoint does not, the fold has no unlabelled case, a
            case is broken.
    """
    if output.exists():
        raise InputError(f"{output} exists already", "Choose a new folder with -o; nothing is overwritten.")
    add_trainer_path()
    found = find_fold(dataset_name_or_id, configuration, trainer, plans_identifier, fold, device)
    labelled = found.cases[0]
    images = _unlabelled(found)
    predictor = found.predictor(found.folder / checkpoint)
    found.check_cases(labelled, list(images.values()))
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as temporary:
        ordered = _order(predictor, found, labelled, images, Path(temporary))
        folder = Path(temporary, "next")
        folder.mkdir()
        _write(ordered, images, found, folder / TABLE)
        for rank, entry in enumerate(ordered[:number], start=1):
            _draw(rank, entry, images[entry.case], found, Path(temporary), folder)
        os.replace(folder, output)
    _print(ordered, number)
    print(f"All of them: {output / TABLE}; pictures of the first ones beside it")
    return ordered


def _unlabelled(found: TrainedFold) -> dict[str, Path]:
    """Case -> image file without extension, of at least one case."""
    check_unlabelled(
        unlabelled_folder(found.dataset, found.configuration), found.plans, found.configuration, found.dataset_json
    )
    images = unlabelled_images(found.dataset, found.number, found.configuration)
    if not images:
        command = unlabelled_command(found.dataset, found.plans.plans_name, found.configuration_name)
        raise InputError(
            f"fold {found.number} of {found.dataset} has no unlabelled case", f"To add some, run: {command}"
        )
    return images


def _order(
    predictor: nnUNetPredictor, found: TrainedFold, labelled: Sequence[str], images: dict[str, Path], slices: Path
) -> list[NextCase]:
    """Predicts all cases and orders the unlabelled ones; of each it saves the slice that would be drawn."""
    pooled = ForegroundFeatures(predictor.network, found.labels)
    known = []
    for case in each_case(labelled, "Labelled cases"):
        _predict(predictor, found.data / case)
        known.append(pooled.take())
    unsure, features, empty = {}, {}, []
    for case in each_case(list(images), "Unlabelled cases"):
        logits = _predict(predictor, images[case])
        features[case] = pooled.take()
        uncertainty = Uncertainty.from_logits(logits, found.labels)
        unsure[case] = uncertainty.mean
        if not uncertainty.voxels:
            empty.append(case)
        segmentation = Prediction.from_logits(logits, found.labels).segmentation
        # Only the end shows which cases are drawn, and the slices of all would fill the memory.
        UnsureSlice.find(segmentation, uncertainty.entropy).save(slices / f"{case}.npz")
    pooled.remove()
    if empty:
        print(
            f"In {len(empty)} of {len(images)} cases the network finds nothing and suspects nothing, so that it is "
            f"unsure of nothing: look at them yourself ({first_names(empty)})."
        )
    return order_cases(unsure, features, known)


def _predict(predictor: nnUNetPredictor, image: Path) -> torch.Tensor:
    return torch.as_tensor(predictor.predict_sliding_window_return_logits(torch.tensor(open_case(image)[:])))


def _write(ordered: Sequence[NextCase], images: dict[str, Path], found: TrainedFold, file: Path) -> None:
    with open(file, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("rank", "case", "unsure", "represents", "image"))
        for rank, entry in enumerate(ordered, start=1):
            preprocessed = images[entry.case]
            image = _raw_image(entry.case, found) or preprocessed.with_name(f"{preprocessed.name}.b2nd")
            writer.writerow((rank, entry.case, f"{entry.unsure:.6f}", f"{entry.represents:.6f}", image))


def _raw_image(case: str, found: TrainedFold) -> Path | None:
    """The first channel of a case in a folder images* of the raw data set, if the user keeps it there."""
    raw = os.environ.get("nnUNet_raw")
    pattern = f"images*/{glob.escape(case)}_0000{found.dataset_json['file_ending']}"
    return min(Path(raw, found.dataset.name).glob(pattern), default=None) if raw else None


def _draw(rank: int, entry: NextCase, image: Path, found: TrainedFold, slices: Path, folder: Path) -> None:
    unsure = UnsureSlice.load(slices / f"{entry.case}.npz")
    voxels = np.asarray(open_case(image)[0, unsure.number], dtype=np.float32)
    *_, height, width = found.configuration.spacing
    title = f"{rank}. {entry.case}: unsure {entry.unsure:.3f}, represents {entry.represents:.4f}"
    file = folder / f"{rank:02d}_{entry.case}.png"
    draw_uncertainty(title, voxels, unsure, label_values(found.labels), height / width, file)


def _print(ordered: Sequence[NextCase], number: int) -> None:
    width = max(len(entry.case) for entry in ordered)
    print(f"\nrank  {'case':{width}}  unsure  represents")
    for rank, entry in enumerate(ordered[:number], start=1):
        print(f"{rank:4}  {entry.case:{width}}  {entry.unsure:6.3f}  {entry.represents:10.4f}")
