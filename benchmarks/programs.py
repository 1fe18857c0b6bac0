"""Where the commands are that the benchmarks call."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path


def program(name: str) -> str:
    """Returns the full path of a command of this Python environment, or else of one on PATH.

    Raises:
        SystemExit: it is in neither.
    """
    folder = Path(sys.executable).parent
    found = shutil.which(name, path=f"{folder}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        raise SystemExit(f"{name} is not installed beside {sys.executable} nor on PATH")
    return found
