"""A picture of where a network is unsure of a case: image, prediction, entropy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.ndimage import distance_transform_edt

from nnunet_semcl.evaluation.overlay import label_colours
from nnunet_semcl.files.atomic import atomic_write

PANEL = 4.2  # inches
HALO = [patheffects.withStroke(linewidth=2, foreground="black")]
GREY_RANGE = (0.5, 99.5)  # percentiles of a slice


@dataclass(frozen=True)
class UnsureSlice:
    """The slice of a case with the most uncertainty.

    Attributes:
        number: of the slice, from 0.
        of: number of slices.
        segmentation: (X, Y), predicted.
        entropy: (X, Y), from 0 to 1.
    """

    number: int
    of: int
    segmentation: np.ndarray
    entropy: np.ndarray

    @classmethod
    def find(cls, segmentation: np.ndarray, entropy: np.ndarray) -> UnsureSlice:
        """Finds the slice with the largest sum of entropies in (X, Y, Z), along the first axis."""
        number = int(entropy.sum((1, 2), dtype=np.float32).argmax())
        return cls(number, len(entropy), segmentation[number].astype(np.uint8), entropy[number].copy())

    def save(self, file: Path) -> None:
        """Saves it as .npz."""
        np.savez(file, **vars(self))

    @classmethod
    def load(cls, file: Path) -> UnsureSlice:
        """Loads what `save` has saved."""
        with np.load(file) as saved:
            return cls(int(saved["number"]), int(saved["of"]), saved["segmentation"], saved["entropy"])


def draw_uncertainty(
    title: str, image: np.ndarray, unsure: UnsureSlice, labels: dict[str, int], aspect: float, output: Path
) -> None:
    """Draws the slice three times: the image, the prediction's outlines on it, and the entropy.

    Args:
        title: above all.
        image: the slice (X, Y) of the case's first channel.
        unsure: the slice's prediction and entropy.
        labels: name -> value in the prediction.
        aspect: height of a voxel by its width.
        output: a PNG.

    Raises:
        InputError: the picture cannot be written.
    """
    height = PANEL * image.shape[0] / image.shape[1] * aspect
    figure = Figure(figsize=(3 * PANEL + 0.8, min(height, 2 * PANEL) + 1.2), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"{title}, slice {unsure.number + 1} of {unsure.of}", fontsize=11)
    axes = figure.subplots(1, 3)
    low, high = np.percentile(image, GREY_RANGE)
    for axis, name in zip(axes, ("image", "prediction", "uncertainty"), strict=True):
        axis.set_title(name, fontsize=10)
        axis.set_axis_off()
        if name != "uncertainty":
            axis.imshow(image, cmap="gray", vmin=low, vmax=high, aspect=aspect)
    colours = label_colours(labels)
    drawn = [name for name, value in labels.items() if (unsure.segmentation == value).any()]
    for name in drawn:
        mask = unsure.segmentation == labels[name]
        axes[1].contour(mask, levels=[0.5], colors=[colours[name]], linewidths=1.3)
        _write_number(axes[1], mask, labels[name])
    shown = axes[2].imshow(unsure.entropy.astype(np.float32), cmap="magma", vmin=0, vmax=1, aspect=aspect)
    figure.colorbar(shown, ax=axes[2], label="entropy, 1 = all labels alike", shrink=0.8)
    if drawn:
        lines = [Line2D([], [], color=colours[name], label=f"{labels[name]} {name}") for name in drawn]
        figure.legend(handles=lines, loc="outside lower center", ncols=7, fontsize=8, frameon=False)
    with atomic_write(output) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _write_number(axis: Axes, mask: np.ndarray, number: int) -> None:
    """Writes a label's number into its mask (X, Y): colours alone are not for all eyes."""
    inside = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]  # the place farthest from the outline
    x, y = np.unravel_index(inside.argmax(), mask.shape)
    axis.text(y, x, str(number), color="white", fontsize=7, ha="center", va="center", path_effects=HALO)
