"""The report of a comparison: a table for the terminal, and a folder with Markdown, CSV and a page for a browser."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from nnunet_semcl.evaluation.comparison import MEAN, Comparison, Row
from nnunet_semcl.evaluation.metrics import HIGHER_IS_BETTER, MEASURES
from nnunet_semcl.files.groups import group_of

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito's, for all kinds of eyes
UNIT = {"Dice": "", "surface Dice": "", "HD95": " (mm)", "ASD": " (mm)"}
HOW_TO_READ = (
    "A difference is the mean over cases (with a group: over groups) that both sides have a value for. Its interval of "
    "95 % redraws cases by bootstrap. p is Wilcoxon's signed-rank test, adjusted by Holm: means for all means in the "
    "table, classes for the classes of one measure. A case's mean is over the classes that all sides have a value for. "
    "Surface Dice and distances are MONAI's; a distance is not defined where one side has no voxel of a class. Several "
    "trainings say more about a method than several cases of one."
)
HOW_TO_READ_IOU = "IoU of the whole data set: intersections and unions are added up over all cases, then divided."
STYLE = """
:root { color-scheme: light dark; --line: #8886; --even: #8881; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
tbody tr:nth-child(even) { background: var(--even); }
tr.mean { font-weight: 600; }
th button { font: inherit; font-weight: 600; background: none; border: 0; cursor: pointer; color: inherit; }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
svg, img { max-width: 100%; height: auto; }
img { background: white; padding: .5rem; }
figure { margin: 1.5rem 0; }
summary { cursor: pointer; padding: .3rem 0; }
"""
SORT = """
for (const button of document.querySelectorAll("th button")) button.onclick = () => {
  const head = button.parentElement, body = head.closest("table").tBodies[0], column = head.cellIndex;
  const down = head.getAttribute("aria-sort") === "ascending";
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const key = row => row.cells[column].textContent;
  const order = (a, b) => isNaN(parseFloat(key(a))) && isNaN(parseFloat(key(b)))
    ? key(a).localeCompare(key(b)) : (parseFloat(key(a)) || -1e9) - (parseFloat(key(b)) || -1e9);
  body.append(...[...body.rows].sort((a, b) => (down ? -1 : 1) * order(a, b)));
};
"""


IoU = Mapping[str, Sequence[float]]
"""Class or mean -> IoU of each side, see `dataset_iou`."""


def as_text(comparison: Comparison, iou: IoU) -> str:
    """Tables for the terminal: Dice of each class, the means of all measures, and IoU of the whole data set."""
    first = comparison.sides[0]
    shown = [row for row in comparison.rows if row.of_class == MEAN or row.measure == "Dice"]
    tables = []
    for side in dict.fromkeys(row.side for row in shown):
        table: list[tuple[str, ...]] = [("", first, side, "difference", "95 %", "p", "n")]
        tables.append(table + [_cells(row) for row in shown if row.side == side])
    tables.append(_iou_cells(comparison, iou))
    return "\n".join(map(_aligned, tables))


def _aligned(table: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for cells in table:
        texts = [cells[0].ljust(widths[0])] + [c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True)]
        lines.append("  ".join(texts).rstrip() + "\n")
    return "".join(lines)


def write_report(
    comparison: Comparison, iou: IoU, about: Sequence[str], pictures: Mapping[str, bytes], folder: Path
) -> None:
    """Writes report.md, cases.csv, iou.csv and index.html, which needs no other file.

    Args:
        comparison: what to report.
        iou: of the same sides.
        about: sentences on what was compared.
        pictures: case -> PNG, of the cases that gained and lost most.
        folder: exists and is empty.
    """
    (folder / "report.md").write_text(_markdown(comparison, iou, about))
    (folder / "cases.csv").write_text(_csv(comparison), newline="")
    (folder / "iou.csv").write_text(_iou_csv(comparison, iou), newline="")
    (folder / "index.html").write_text(_page(comparison, iou, about, pictures))


def _cells(row: Row) -> tuple[str, ...]:
    name = f"{row.measure}{UNIT[row.measure]}" if row.of_class == MEAN else f"  {row.of_class}"
    low, high = (_number(value, row.measure, "+") for value in row.interval)
    p = "-" if np.isnan(row.p) else f"{row.p:.2g}"
    figures = (_number(row.first, row.measure), _number(row.second, row.measure))
    interval = f"[{low}, {high}]" if row.units else "-"
    return (name, *figures, _number(row.difference, row.measure, "+"), interval, p, str(row.units))


def _number(value: float, measure: str, sign: str = "") -> str:
    return "-" if np.isnan(value) else format(value, f"{sign}.{2 if UNIT[measure] else 3}f")


def _iou_cells(comparison: Comparison, iou: IoU) -> list[tuple[str, ...]]:
    """A header and a row for each class and mean: the IoU of each side, and the differences to the first one."""
    first, *others = comparison.sides
    differences = [f"{side} - {first}" for side in others] if len(others) > 1 else ["difference"]
    rows = [("IoU of all cases", *comparison.sides, *differences)]
    for name, values in iou.items():
        gains = (_number(value - values[0], "Dice", "+") for value in values[1:])
        rows.append((name, *(_number(value, "Dice") for value in values), *gains))
    return rows


def _markdown(comparison: Comparison, iou: IoU, about: Sequence[str]) -> str:
    lines = [f"# {' and '.join(comparison.sides)}", "", *about, "", HOW_TO_READ]
    for side in comparison.sides[1:]:
        lines += ["", f"## {side} - {comparison.sides[0]}", ""]
        lines += [f"| | {comparison.sides[0]} | {side} | difference | 95 % | p | n |", "|---|---|---|---|---|---|---|"]
        for row in comparison.rows:
            if row.side == side:
                name, *cells = _cells(row)
                bold = "**" if row.of_class == MEAN else ""
                lines.append(f"| {bold}{name.strip()}{bold} | {' | '.join(cells)} |")
    header, *rows = (f"| {' | '.join(cells)} |" for cells in _iou_cells(comparison, iou))
    lines += ["", HOW_TO_READ_IOU, "", header, "|---" * (2 * len(comparison.sides)) + "|", *rows]
    return "\n".join(lines) + "\n"


def _csv(comparison: Comparison) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(("case", "group", "side", "class", *MEASURES))
    for case in comparison.cases:
        for side in comparison.sides:
            for of_class, measures in comparison.values[side][case].items():
                known = ["" if np.isnan(measures[m]) else repr(measures[m]) for m in MEASURES]
                writer.writerow((case, group_of(case, comparison.group), side, of_class, *known))
    return text.getvalue()


def _iou_csv(comparison: Comparison, iou: IoU) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(("class", *comparison.sides))
    for name, values in iou.items():
        writer.writerow((name, *("" if np.isnan(value) else repr(value) for value in values)))
    return text.getvalue()


def _page(comparison: Comparison, iou: IoU, about: Sequence[str], pictures: Mapping[str, bytes]) -> str:
    title = escape(" and ".join(comparison.sides))
    parts = [
        "<!doctype html>",
        '<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>{title}</title>",
        f"<style>{STYLE}</style><h1>{title}</h1>",
        *(f"<p>{escape(sentence)}</p>" for sentence in (*about, HOW_TO_READ)),
    ]
    parts.append(_box_plots(comparison))
    for side in comparison.sides[1:]:
        parts.append(f"<h2>{escape(side)} - {escape(comparison.sides[0])}</h2>")
        header = ("", comparison.sides[0], side, "difference", "95 %", "p", "n")
        for measure in MEASURES:
            mean, *classes = [row for row in comparison.rows if (row.side, row.measure) == (side, measure)]
            table = _table(header, [(row.of_class == MEAN, _cells(row)) for row in (mean, *classes)])
            is_open = " open" if measure == "Dice" else ""
            cells = _cells(mean)
            summary = escape(f"{cells[0]} {cells[1]} → {cells[2]}, {cells[3]} {cells[4]}")
            parts.append(f"<details{is_open}><summary>{summary}</summary>{table}</details>")
    sides, *rows = _iou_cells(comparison, iou)
    parts.append(f"<h2>IoU</h2><p>{HOW_TO_READ_IOU}</p>{_table(sides, [(row[0] == MEAN, row) for row in rows])}")
    parts.append(f"<h2>Cases</h2>{_cases_table(comparison)}")
    if pictures:
        parts.append("<h2>Cases that gained and lost most</h2>")
    for case, png in pictures.items():
        data = base64.b64encode(png).decode()
        parts.append(f'<figure><img alt="{escape(case)}" src="data:image/png;base64,{data}"></figure>')
    return "\n".join((*parts, f"<script>{SORT}</script></html>\n"))


def _table(header: Sequence[str], body: Sequence[tuple[bool, Sequence[str]]], sortable: bool = False) -> str:
    heads = [f"<button>{escape(name)}</button>" if sortable else escape(name) for name in header]
    rows = [
        f"<tr{' class=mean' * is_mean}>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
        for is_mean, cells in body
    ]
    head = "".join(f"<th>{name}</th>" for name in heads)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _cases_table(comparison: Comparison) -> str:
    first, *others = comparison.sides
    header = ["case", *(["group"] if comparison.group else []), *(f"Dice of {side}" for side in comparison.sides)]
    header += [f"{side} - {first}" for side in others] + [f"HD95 of {side} (mm)" for side in comparison.sides]
    body = []
    for case in comparison.cases:
        dice = [comparison.of_case(side, case, "Dice") for side in comparison.sides]
        cells = [case, *([group_of(case, comparison.group)] if comparison.group else [])]
        cells += [_number(value, "Dice") for value in dice]
        cells += [_number(value - dice[0], "Dice", "+") for value in dice[1:]]
        cells += [_number(comparison.of_case(side, case, "HD95"), "HD95") for side in comparison.sides]
        body.append((False, cells))
    return _table(header, body, sortable=True)


def _box_plots(comparison: Comparison) -> str:
    """A panel for each measure; lines join the values of one case."""
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "comparison"}):
        figure = Figure(figsize=(3 * len(MEASURES), 3.2), layout="constrained")
        FigureCanvasSVG(figure)
        numbers = range(1, len(comparison.sides) + 1)
        # Once below all panels: long names below each would leave them no room.
        names = ", ".join(f"{number}: {side}" for number, side in zip(numbers, comparison.sides, strict=True))
        figure.supxlabel(names, fontsize=10)
        for axis, measure in zip(figure.subplots(1, len(MEASURES)), MEASURES, strict=True):
            values = np.array([[comparison.of_case(s, c, measure) for s in comparison.sides] for c in comparison.cases])
            for pair in values:
                axis.plot(range(1, len(pair) + 1), pair, color="grey", alpha=0.4, linewidth=0.7)
            for number, column in enumerate(values.T):
                known = column[~np.isnan(column)]
                colour = COLOURS[number % len(COLOURS)]
                line = {"color": colour, "linewidth": 1.5}
                parts = {f"{part}props": line for part in ("box", "whisker", "cap", "median")}
                axis.boxplot(
                    [known], positions=[number + 1], widths=0.5, flierprops={"markeredgecolor": colour}, **parts
                )
            axis.set_xticks(numbers, map(str, numbers))
            better = "higher" if HIGHER_IS_BETTER[measure] else "lower"
            axis.set_title(f"{measure}{UNIT[measure]}, {better} is better", fontsize=10)
            axis.patch.set_alpha(0)
        figure.patch.set_alpha(0)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    # Black becomes the page's own colour, light or dark.
    return svg[svg.index("<svg") :].replace("#000000", "currentColor").replace("<text ", '<text fill="currentColor" ')
