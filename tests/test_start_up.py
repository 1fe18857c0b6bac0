"""benchmarks/start_up.py starts nnU-Net's trainer and ours, each in each of its ways."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conftest import NNUNetFolders

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "start_up.py"


def test_quick(prepared: NNUNetFolders, tmp_path: Path) -> None:
    for name in ("raw", "preprocessed"):  # else the script plans the same phantom
        shutil.copytree(prepared.root / name, tmp_path / "work" / name)
    results = tmp_path / "start_up.json"
    command = [sys.executable, str(SCRIPT), "--quick", "-o", str(tmp_path / "work"), "--results", str(results)]
    environment = os.environ | {"nnUNet_n_proc_DA": "0"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    *starts, masks = json.loads(results.read_text())
    assert [row["start"] for row in starts] == ["nnU-Net", "SemCL first", "SemCL again", "SemCL --c"], run.stdout
    for row in starts:
        assert 0 < row["ready_seconds"] < row["seconds"], run.stdout
        assert 0 < row["main_mib"] <= row["all_mib"], run.stdout
        assert row["difference"] == row["seconds"] - starts[0]["seconds"]
    assert masks["start"] == "masks"
    assert masks["masks"] == 2
    assert 0 < masks["network_seconds"] < masks["seconds"], run.stdout
    assert masks["main_mib"] >= starts[1]["main_mib"]
    assert "s a mask" in run.stdout
