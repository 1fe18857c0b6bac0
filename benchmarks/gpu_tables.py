"""The tables that gpu_check.py prints at its end."""

from __future__ import annotations

import statistics
from typing import Any


def tables(found: dict[str, Any]) -> str:
    """A short report of a results file: seconds, tests, steps, losses, Dice."""
    lines = [f"{found['device']}, {found['cores']} cores, torch {found['torch']}"]
    lines.append(f"seconds: {found['seconds']}")
    lines.append(f"tests: {found.get('tests')}")
    rows = found.get("steps", [])
    base = {
        (r["configuration"], r["compiled"]): r["step_seconds"]
        for r in (rows if isinstance(rows, list) else [])
        if (r.get("phase"), r["run"][:10]) == ("training", "TimedSemCL")
    }
    lines.append(
        f"\n{'':42}{'ms/step':>9}{'of nnU-Net':>11}{'ms GPU':>8}{'waiting':>9}{'GiB':>7}{'first s':>9}{'graphs':>8}"
    )
    for row in rows if isinstance(rows, list) else [rows]:
        if "step_seconds" in row:
            of = row["step_seconds"] / base.get((row["configuration"], row["compiled"]), float("nan"))
            lines.append(
                f"{row['run'] + ' ' + row['phase']:42}{1000 * row['step_seconds']:9.1f}{of:11.2f}"
                f"{1000 * row['gpu_seconds']:8.1f}"
                f"{row['waiting_share']:9.0%}{row['peak_gib']:7.2f}{row['first_step_seconds']:9.1f}"
                f"{row['recompilations']:8}"
            )
        else:
            lines.append(str(row))
    lines.append(f"\n{'':42}{'ms':>9}{'MiB':>11}")
    for row in found.get("losses", []):
        named = f"{row['side']} N={row['n']}" if isinstance(row, dict) else row
        lines.append(f"{named:42}{row['ms']:9.2f}{row['mib']:11.1f}" if "ms" in row else str(row))
    for row in found.get("dice", []):
        if isinstance(row, dict):
            dice = statistics.mean(case["dice"] for case in row["cases"].values())
            lines.append(f"{row['trainer']} seed {row['seed']}: Dice {dice:.4f}, {row['seconds']} s")
    return "\n".join(lines)
