"""Wheel and sdist contain trainers/ and plans/ inside the package."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCES = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "nnunet_semcl", "trainers", "plans")


def test_wheel_from_sdist(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in SOURCES:
        original = ROOT / name
        if original.is_dir():
            shutil.copytree(original, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(original, source)
    # By default, build makes the sdist and then the wheel from the sdist, as for PyPI.
    result = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path / "dist"), str(source)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    (sdist,) = (tmp_path / "dist").glob("*.tar.gz")
    installed = set(zipfile.ZipFile(wheel).namelist())
    modules = {str(p.relative_to(ROOT)) for p in (ROOT / "nnunet_semcl").rglob("*.py")}
    top = {f"nnunet_semcl/{p.relative_to(ROOT)}" for p in (*ROOT.glob("trainers/*.py"), *ROOT.glob("plans/*.json"))}
    assert modules | top <= installed
    with tarfile.open(sdist) as archive:
        shipped = {name.split("/", 1)[-1] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "trainers/SemCLTrainer.py", "plans/tiny.json"} <= shipped


def test_trainers_hold_import_lines_only() -> None:
    import ast

    for path in (ROOT / "trainers").glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            is_all = isinstance(node, ast.Assign) and node.targets[0].id == "__all__"
            is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            assert isinstance(node, ast.ImportFrom) or is_all or is_docstring, f"{path}: line {node.lineno}"
