"""A picture that compares trainers: one slice of a case with its truth and their predictions."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import SimpleITK as sitk
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from nnunet_semcl.errors import InputError
from nnunet_semcl.files.atomic import atomic_write

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


def _save(figure: Figure, output: Path) -> None:
    with atomic_write(output) as temporary:
        figure.savefig(temporary, format="png", dpi=110, bbox_inches="tight")
