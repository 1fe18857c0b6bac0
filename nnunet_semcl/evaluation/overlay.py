"""Pictures that compare trainers: one slice with its truth and predictions, and the loss curves."""

from __future__ import annotations

import ast
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
LONG_NAME = 16  # letters of a name beside which there is no room for another one


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
        image: file of one case.
        truth: its true segmentation.
        predictions: trainer -> predicted segmentation of the case.
        labels: organ -> value in the segmentations.
        dice: trainer -> organ -> Dice of the case.
        output: a PNG.

    Raises:
        InputError: a segmentation has another shape than the image, or the truth contains no organ.
    """
    voxels, spacing = _read(image)
    segmentations = {"truth": _read(truth)[0]}
    segmentations |= {trainer: _read(file)[0] for trainer, file in predictions.items()}
    for file, segmentation in zip((truth, *predictions.values()), segmentations.values(), strict=True):
        if segmentation.shape != voxels.shape:
            raise InputError(
                f"{file}: the shape {segmentation.shape} differs from the image's, {voxels.shape}",
                "Give files of the same case.",
            )
    if not segmentations["truth"].any():
        raise InputError(f"{truth} contains only background, no organ", "Choose another case.")
    z = most_organs(segmentations["truth"])
    low, high = _window(voxels, segmentations["truth"])
    colours = label_colours(labels)
    shown = {"interpolation": "nearest", "aspect": spacing[1] / spacing[2]}
    height = PANEL_WIDTH * voxels.shape[1] * spacing[1] / (voxels.shape[2] * spacing[2])

    figure = Figure(figsize=(PANEL_WIDTH * (1 + len(segmentations)), height))
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 1 + len(segmentations), gridspec_kw={"wspace": 0.03})
    panels: dict[str, np.ndarray | None] = {"image": None, **segmentations}
    for axis, (title, panel) in zip(axes, panels.items(), strict=True):
        axis.imshow(voxels[z], cmap="gray", vmin=low, vmax=high, **shown)
        axis.set_title(title)
        axis.set_axis_off()
        if panel is None:
            below = f"{truth.name.split('.')[0]}, axial slice {z}\nDice of the whole case"
            axis.text(0.5, -0.03, below, ha="center", va="top", fontsize=8, transform=axis.transAxes)
            continue
        painted = np.zeros((*voxels[z].shape, 4))
        for organ, value in labels.items():
            painted[panel[z] == value] = to_rgba(colours[organ], OPACITY)
        axis.imshow(painted, **shown)
        _legend(axis, colours, dice.get(title))
    _save(figure, output)


def most_organs(segmentation: np.ndarray) -> int:
    """Number of the slice of (Z, Y, X) with the most labels; of several, the one with the most labelled voxels."""
    return max(
        range(len(segmentation)),
        key=lambda z: (len(np.unique(segmentation[z][segmentation[z] > 0])), np.count_nonzero(segmentation[z] > 0)),
    )


@dataclass(frozen=True)
class Steps:
    """Optimiser steps of a training.

    Attributes:
        pretraining: steps of all pretraining.
        per_epoch: steps in an epoch of nnU-Net's training.
        epochs: epochs of nnU-Net's training.
    """

    pretraining: int
    per_epoch: int
    epochs: int

    @property
    def total(self) -> int:
        """Steps of pretraining and training together."""
        return self.pretraining + self.per_epoch * self.epochs


def read_steps(fold: Path) -> Steps:
    """Reads the optimiser steps of a fold's training from nnU-Net's debug.json.

    Raises:
        InputError: the folder contains no training.
    """
    debug = fold / "debug.json"
    if not debug.is_file():
        raise InputError(f"{debug}, which nnUNetv2_train writes, does not exist", "Train this fold first.")
    settings = json.loads(debug.read_text())
    per_epoch, epochs = int(settings["num_iterations_per_epoch"]), int(settings["num_epochs"])
    by_phase = ast.literal_eval(settings.get("epochs", "{}"))  # of our trainers, in which num_epochs is training's
    return Steps((sum(by_phase.values()) - epochs) * per_epoch if by_phase else 0, per_epoch, epochs)


def draw_loss_curves(folds: dict[str, Path], pretraining_log: str, output: Path) -> None:
    """Draws nnU-Net's losses and pseudo Dice over the optimiser steps, and the loss of pretraining where it is logged.

    The curves after a pretraining start where it ends, so that equal numbers of steps align.

    Args:
        folds: trainer -> folder fold_X of a finished training.
        pretraining_log: name of the log of pretraining in these folders.
        output: a PNG.

    Raises:
        InputError: a folder contains no finished training.
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
        raise InputError(
            f"{checkpoint} of a finished training does not exist", "Finish the training of this fold first."
        )
    return load_safely(checkpoint, torch.device("cpu"), {"logging"})["logging"]


def _read(file: Path) -> tuple[np.ndarray, tuple[float, ...]]:
    """Voxels (Z, Y, X) and their spacing (z, y, x) in mm."""
    volume = sitk.ReadImage(str(file))
    voxels, spacing = sitk.GetArrayFromImage(volume), volume.GetSpacing()[::-1]
    if volume.GetNumberOfComponentsPerPixel() > 1:  # colours
        voxels = voxels.mean(-1)
    return (voxels[None], (1.0, *spacing)) if voxels.ndim == 2 else (voxels, spacing)


def _window(voxels: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """The range of grey values that shows the organs, with half its width added on either side."""
    low, high = np.percentile(voxels[truth > 0], (2, 98))
    return low - (high - low) / 2, high + (high - low) / 2


def label_colours(labels: dict[str, int]) -> dict[str, tuple[float, float, float]]:
    """Returns a colour for each label; none is grey, which is invisible on a grey image."""
    colormap = matplotlib.colormaps["tab10" if len(labels) < 10 else "tab20"]
    palette = [colormap(number)[:3] for number in range(colormap.N)]
    visible = [colour for colour in palette if max(colour) > min(colour)]  # grey is invisible on a grey image
    return {organ: visible[number % len(visible)] for number, organ in enumerate(labels)}


def _legend(axis: Axes, colours: dict[str, tuple[float, float, float]], dice: dict[str, float] | None) -> None:
    patches = [
        Patch(color=colour, label=organ if dice is None else f"{organ} {dice[organ]:.2f}".replace("nan", "-"))
        for organ, colour in colours.items()
    ]
    columns = 1 if max(map(len, colours)) > LONG_NAME else 2
    axis.legend(handles=patches, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=columns, fontsize=8, frameon=False)


def _label(axis: Axes, title: str, y: str) -> None:
    axis.set_title(title)
    axis.set_xlabel("optimiser steps")
    axis.set_ylabel(y)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)


def _save(figure: Figure, output: Path) -> None:
    with atomic_write(output) as temporary:
        figure.savefig(temporary, format="png", dpi=110, bbox_inches="tight")
