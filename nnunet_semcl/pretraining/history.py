"""The history of a phase, epoch by epoch: a log of JSON lines and a plot, in the fold's folder."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from nnunet_semcl.files.atomic import atomic_write

LOG_NAME = "pretraining_log.jsonl"

Record = dict[str, float | int]


def write_history(folder: Path, name: str, records: list[Record]) -> None:
    """Writes NAME_log.jsonl, one JSON object per epoch, and NAME.png; each replaces the previous file atomically.

    A key `held_out_x` is the figure x on cases that the phase does not train on.
    """
    with atomic_write(folder / f"{name}_log.jsonl") as temporary:
        temporary.write_text("".join(json.dumps(_finite(r)) + "\n" for r in records))
    trained = [k for k in records[-1] if f"held_out_{k}" in records[-1]]
    names = trained or [k for k in records[-1] if k not in ("epoch", "learning_rate", "seconds")]
    figure = Figure(figsize=(9, 3 * len(names)), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, figure_name in zip(figure.subplots(len(names), 1, squeeze=False)[:, 0], names, strict=True):
        _curve(axis, records, figure_name, "training cases")
        _curve(axis, records, f"held_out_{figure_name}", "held-out cases")
        axis.set_ylabel(figure_name)
        axis.grid(alpha=0.3)
        axis.legend()
    axis.set_xlabel(f"epochs of {name} done")
    with atomic_write(folder / f"{name}.png") as temporary:
        figure.savefig(temporary, format="png", dpi=100)


def _finite(record: Record) -> dict[str, float | int | None]:
    """JSON knows neither NaN nor infinity."""
    return {name: value if math.isfinite(value) else None for name, value in record.items()}


def _curve(axis: Axes, records: Iterable[Record], name: str, label: str) -> None:
    points = [(r["epoch"], r[name]) for r in records if name in r]
    if points:
        axis.plot(*zip(*points, strict=True), marker="o", markersize=3, label=label)
