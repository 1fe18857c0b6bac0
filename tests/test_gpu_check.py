"""benchmarks/gpu_check.py, the script for a GPU, runs on a CPU too."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conftest import NNUNetFolders

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "gpu_check.py"


def test_quick(prepared: NNUNetFolders, tmp_path: Path) -> None:
    for name in ("raw", "preprocessed"):  # else the script draws and preprocesses the same phantom
        shutil.copytree(prepared.root / name, tmp_path / "work" / name)
    results = tmp_path / "logs" / "gpu.json"
    command = [sys.executable, str(SCRIPT), "--quick", "-o", str(tmp_path / "work"), "--results", str(results)]
    sections = ["--sections", "steps", "losses"]  # the suite runs the tests already, and a training takes a minute
    run = subprocess.run([*command, *sections], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    found = json.loads(results.read_text())
    phases = {(row["run"], row["phase"]): row for row in found["steps"]}
    assert phases.keys() == {
        ("TimedSemCL_2d_eager", "coarse"),
        ("TimedSemCL_2d_eager", "masks"),
        ("TimedSemCL_2d_eager", "pretraining"),
        ("TimedSemCL_2d_eager", "training"),
        ("TimedIDEAL_2d_eager", "pretraining"),
        ("TimedIDEAL_2d_eager", "training"),
    }
    assert all(row["step_seconds"] > 0 for (_, phase), row in phases.items() if phase != "masks")
    # Each loss equals the plain formula on the same embeddings.
    values = {(row["side"], row["n"]): row["loss"] for row in found["losses"] if "failed" not in row}
    for ours, plain in (("SupConLoss", "plain SupCon"), ("DenseContrastiveLoss", "plain dense")):
        assert all(math.isclose(values[ours, n], values[plain, n], rel_tol=1e-5) for n in (256, 1024))
    assert "of nnU-Net" in run.stdout
