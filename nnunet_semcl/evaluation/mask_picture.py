"""A picture of pseudo-labels, by which a user sees whether to trust them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from nnunet_semcl.evaluation.overlay import OPACITY, label_colours, most_organs
from nnunet_semcl.files.atomic import atomic_write
from nnunet_semcl.files.cases import Cases

CASES = 4
IGNORED = (1.0, 1.0, 1.0, 0.35)  # a white veil over what does not supervise


def draw_masks(cases: Cases, labels: dict[str, int], ignore_label: int, output: Path) -> None:
    """Draws up to four cases, spread over the list: the slice with the most labels, without and with them.

    Args:
        cases: with pseudo-labels for a segmentation.
        labels: object -> value in the segmentations.
        ignore_label: value of voxels that do not supervise.
        output: a PNG.

    Raises:
        InputError: the picture cannot be written.
    """
    drawn = cases.identifiers[:: max(1, len(cases.identifiers) // CASES)][:CASES]
    colours = label_colours(labels)
    figure = Figure(figsize=(3 * len(drawn), 6.5), layout="constrained")
    FigureCanvasAgg(figure)
    for (above, below), case in zip(figure.subplots(2, len(drawn), squeeze=False).T, drawn, strict=True):
        image, segmentation, _, _ = cases.load_case(case)
        values = np.array(segmentation[:])[0]
        ignored = values == ignore_label
        values[values >= ignore_label] = 0  # above it: background, or an object that was not found
        slice_number = most_organs(values)
        painted = np.zeros((*values.shape[1:], 4))
        for name, value in labels.items():
            painted[values[slice_number] == value] = to_rgba(colours[name], OPACITY)
        painted[ignored[slice_number]] = IGNORED
        for axis in (above, below):
            axis.imshow(image[0][slice_number], cmap="gray")
            axis.set_axis_off()
        above.set_title(f"{case}\nslice {slice_number}", fontsize=9)
        below.imshow(painted, interpolation="nearest")
    patches = [Patch(color=colour, label=name) for name, colour in colours.items()]
    patches.append(Patch(facecolor="lightgrey", edgecolor="black", label="does not supervise"))
    figure.legend(handles=patches, loc="outside lower center", ncols=6, fontsize=8, frameon=False)
    with atomic_write(output) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
