"""A picture of embeddings in the plane: a panel a state, a colour, a marker and a number a class."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from sklearn.manifold import TSNE

from nnunet_semcl.evaluation.overlay import label_colours
from nnunet_semcl.files.atomic import atomic_write

MARKERS = "osD^v<>PXph*d8"
PERPLEXITY = 30  # scikit-learn's default
SEED = 0
GREY = (0.55, 0.55, 0.55)  # of the background
HALO = [patheffects.withStroke(linewidth=2.5, foreground="white")]
PANEL = 5.5  # inches


def draw_embeddings(
    panels: dict[str, np.ndarray], classes: np.ndarray, is_object: np.ndarray, names: dict[str, int], output: Path
) -> None:
    """Draws a t-SNE of each state's embeddings (cosine, seeded); distances between panels say nothing.

    Voxels are small and pale, objects large with a black edge; each class has its number where its voxels are.

    Args:
        panels: title -> embeddings (N, D) of the same N voxels and objects.
        classes: (N,) names.
        is_object: (N,) bool.
        names: class -> number, in the order of the legend.
        output: a PNG.

    Raises:
        InputError: the picture cannot be written.
    """
    foreground = {name: number for name, number in names.items() if name != "background"}
    colours = {"background": GREY, **label_colours(foreground)}
    markers = {name: MARKERS[position % len(MARKERS)] for position, name in enumerate(names)}
    figure = Figure(figsize=(PANEL * len(panels), PANEL + 0.9), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, (title, embeddings) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
        perplexity = min(PERPLEXITY, (len(embeddings) - 1) / 3)
        places = TSNE(perplexity=perplexity, metric="cosine", init="pca", random_state=SEED).fit_transform(embeddings)
        for name in names:
            of_class = classes == name
            style = {"color": colours[name], "marker": markers[name]}
            voxels, objects = places[of_class & ~is_object], places[of_class & is_object]
            axis.scatter(*voxels.T, s=9, alpha=0.55, linewidths=0, **style)
            axis.scatter(*objects.T, s=70, edgecolors="black", linewidths=0.8, zorder=3, **style)
            if len(voxels):
                _write_number(axis, voxels, names[name])
        axis.set(xticks=[], yticks=[])
        axis.set_title(title, fontsize=11)
    entries = [
        Line2D([], [], linestyle="", color=colours[name], marker=markers[name], label=f"{number} {name}")
        for name, number in names.items()
    ]
    figure.suptitle("t-SNE of features in held-out cases: small markers are voxels, large ones objects", fontsize=10)
    columns = math.ceil(len(entries) / math.ceil(len(entries) / (2 + 2 * len(panels))))
    figure.legend(handles=entries, loc="outside lower center", ncols=columns, fontsize=8, frameon=False)
    with atomic_write(output) as temporary:
        figure.savefig(temporary, format="png", dpi=130)


def _write_number(axis: Axes, places: np.ndarray, number: int) -> None:
    """Writes a class's number at the voxel that is nearest to all others: a mean may lie between two clusters."""
    distances = np.linalg.norm(places[:, None] - places[None], axis=-1)
    middle = places[np.median(distances, axis=0).argmin()]
    axis.text(middle[0], middle[1], str(number), ha="center", va="center", weight="bold", zorder=4, path_effects=HALO)
