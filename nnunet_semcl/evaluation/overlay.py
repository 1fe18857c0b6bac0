"""Pictures that set trainers side by side: one slice with its truth and predictions, and the loss curves."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import SimpleITK as sitk
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from nnunet_semcl.errors import InputError
from nnunet_semcl.files.atomic import atomic_write
from nnunet_semcl.files.checkpoints import load_safely

OPACITY = 0.6
PANEL_WIDTH = 4  # inches


def draw_overlay(
    image: Path,
    truth: Path,
    predictions: dict[str, Path],
    labels: dict[str, int],
    dice: dict[str, dict[str, float]],
    output: Path,
) -> None:
    """Draws the axial slice with the most organs: the image, the truth and each trainer's prediction.

    Args:
        image, truth: files of one case.
        predictions: file by trainer, of that case.
        labels: the organs, with their values in the segmentations.
        dice: of that case by trainer and organ.
        output: a PNG.

    Raises:
        InputError: a segmentation's grid is not the image's, or the truth shows no organ.
    """
    voxels, spacing = _read(image)
    segmentations = {"truth": _read(truth)[0]}
    segmentations |= {trainer: _read(file)[0] for trainer, file in predictions.items()}
    for file, segmentation in zip((truth, *predictions.values()), segmentations.values(), strict=True):
        if segmentation.shape != voxels.shape:
            raise InputError(
                str(file), f"the shape {segmentation.shape}", f"the image's, {voxels.shape}", "Name files of one case."
            )
    if not segmentations["truth"].any():
        raise InputError(str(truth), "background alone", "a case with organs", "Choose another case.")
    z = most_organs(segmentations["truth"])
    low, high = _window(voxels, segmentations["truth"])
    colours = _colours(labels)
    shown = {"interpolation": "nearest", "aspect": spacing[1] / spacing[2]}
    height = PANEL_WIDTH * voxels.shape[1] * spacing[1] / (voxels.shape[2] * spacing[2])

    figure = Figure(figsize=(PANEL_WIDTH * (1 + len(segmentations)), height))
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 1 + len(segmentations), gridspec_kw={"wspace": 0.03})
    for axis, (title, segmentation) in zip(axes, {"image": None, **segmentations}.items(), strict=True):
        axis.imshow(voxels[z], cmap="gray", vmin=low, vmax=high, **shown)
        axis.set_title(title)
        axis.set_axis_off()
        if segmentation is None:
            below = f"{truth.name.split('.')[0]}, axial slice {z}\nDice is that of the whole case"
            axis.text(0.5, -0.03, below, ha="center", va="top", fontsize=8, transform=axis.transAxes)
            continue
        painted = np.zeros((*voxels[z].shape, 4))
        for organ, value in labels.items():
            painted[segmentation[z] == value] = to_rgba(colours[organ], OPACITY)
        axis.imshow(painted, **shown)
        _legend(axis, colours, dice.get(title))
    _save(figure, output)


def most_organs(segmentation: np.ndarray) -> int:
    """The slice of (Z, Y, X) with the most labels; among several the one with the most labelled voxels."""
    return max(
        range(len(segmentation)),
        key=lambda z: (len(np.unique(segmentation[z][segmentation[z] > 0])), np.count_nonzero(segmentation[z] > 0)),
    )


@dataclass(frozen=True)
class Steps:
    """Optimiser steps of a training."""

    pretraining: int
    per_epoch: int
    epochs: int

    @property
    def total(self) -> int:
        return self.pretraining + self.per_epoch * self.epochs


def read_steps(fold: Path) -> Steps:
    """Optimiser steps of the training in a fold's folder, from nnU-Net's debug.json.

    Raises:
        InputError: nothing was trained in that folder.
    """
    debug = fold / "debug.json"
    if not debug.is_file():
        raise InputError(str(debug), "no such file", "the one that nnUNetv2_train writes", "Train this fold first.")
    settings = json.loads(debug.read_text())
    return Steps(
        int(settings.get("num_pretraining_epochs", 0)) * int(settings.get("num_pretraining_iterations_per_epoch", 0)),
        int(settings["num_iterations_per_epoch"]),
        int(settings["num_epochs"]),
    )


def draw_loss_curves(folds: dict[str, Path], pretraining_log: str, output: Path) -> None:
    """Draws nnU-Net's losses and pseudo Dice over the optimiser steps, and pretraining's loss where there was one.

    A pretrained training's curves begin where its pretraining ends, so that equal steps are above one another.

    Args:
        folds: the folder fold_X of each trainer, finished.
        pretraining_log: name of the log of pretraining, where a folder has one.
        output: a PNG.

    Raises:
        InputError: a folder holds no finished training.
    """
    logs = {trainer: log for trainer, fold in folds.items() if (log := fold / pretraining_log).is_file()}
    figure = Figure(figsize=(5 * (3 if logs else 2), 4), layout="constrained")
    FigureCanvasAgg(figure)
    losses, dice, *rest = figure.subplots(1, 3 if logs else 2)
    for number, (trainer, fold) in enumerate(folds.items()):
        logged, steps, colour = _training_log(fold), read_steps(fold), f"C{number}"
        ends = steps.pretraining + steps.per_epoch * (1 + np.arange(len(logged["train_losses"])))
        losses.plot(ends, logged["train_losses"], color=colour, marker=".", label=f"{trainer}, training")
        losses.plot(ends, logged["val_losses"], "--", color=colour, marker=".", label=f"{trainer}, validation")
        dice.plot(ends, logged["mean_fg_dice"], color=colour, marker=".", label=trainer)
        if trainer in logs:
            _draw_pretraining(rest[0], logs[trainer], steps.pretraining, colour, trainer)
    _label(losses, "nnU-Net's loss", "Dice and cross-entropy loss")
    _label(dice, "Validation patches", "pseudo Dice, mean of organs")
    dice.set_ylim(0, 1)
    for axis in rest:
        _label(axis, "Pretraining", "loss of pretraining")
    _save(figure, output)


def _draw_pretraining(axis: Axes, log: Path, steps: int, colour: str, trainer: str) -> None:
    records = [json.loads(line) for line in log.read_text().splitlines()]
    per_epoch = steps / max(r["epoch"] for r in records)
    for key, style, cases in (("loss", "-", "training"), ("held_out_loss", "--", "held-out")):
        points = [(r["epoch"] * per_epoch, r[key]) for r in records if key in r]
        if points:
            axis.plot(*zip(*points, strict=True), style, color=colour, marker=".", label=f"{trainer}, {cases} cases")


def _training_log(fold: Path) -> dict[str, list[float]]:
    checkpoint = fold / "checkpoint_final.pth"
    if not checkpoint.is_file():
        raise InputError(str(checkpoint), "no such file", "a finished training", "Train this fold to its end first.")
    return load_safely(checkpoint, torch.device("cpu"), {"logging"})["logging"]


def _read(file: Path) -> tuple[np.ndarray, tuple[float, ...]]:
    """Voxels (Z, Y, X) and their spacing (z, y, x) in mm."""
    volume = sitk.ReadImage(str(file))
    return sitk.GetArrayFromImage(volume), volume.GetSpacing()[::-1]


def _window(voxels: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Grey values that show the organs, with as much again on either side of them."""
    low, high = np.percentile(voxels[truth > 0], (2, 98))
    return low - (high - low) / 2, high + (high - low) / 2


def _colours(labels: dict[str, int]) -> dict[str, tuple[float, float, float]]:
    palette = matplotlib.colormaps["tab10" if len(labels) < 10 else "tab20"].colors
    visible = [colour for colour in palette if max(colour) > min(colour)]  # a grey is lost on a grey image
    return {organ: visible[number % len(visible)] for number, organ in enumerate(labels)}


def _legend(axis: Axes, colours: dict[str, tuple[float, float, float]], dice: dict[str, float] | None) -> None:
    patches = [
        Patch(color=colour, label=organ if dice is None else f"{organ} {dice[organ]:.2f}".replace("nan", "-"))
        for organ, colour in colours.items()
    ]
    axis.legend(handles=patches, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=2, fontsize=8, frameon=False)


def _label(axis: Axes, title: str, y: str) -> None:
    axis.set_title(title)
    axis.set_xlabel("optimiser steps")
    axis.set_ylabel(y)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)


def _save(figure: Figure, output: Path) -> None:
    with atomic_write(output) as beside:
        figure.savefig(beside, format="png", dpi=110, bbox_inches="tight")
