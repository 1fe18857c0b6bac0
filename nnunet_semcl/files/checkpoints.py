"""Checkpoint files that are never half-written and never run foreign code."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from nnunet_semcl.errors import InputError
from nnunet_semcl.files.atomic import atomic_write

# What nnU-Net's log consists of besides plain values and tensors; all else in a checkpoint is refused.
_SCALAR = np.float64(0).__reduce__()[0]
NUMPY_SCALARS = [
    _SCALAR,
    (_SCALAR, "numpy.core.multiarray.scalar"),  # as numpy 1 wrote it
    np.dtype,
    *(type(np.dtype(kind)) for kind in (np.float32, np.float64, np.int64)),
]


def save_atomically(content: dict[str, Any], path: Path) -> None:
    """torch.save beside the file, then os.replace: a kill at any moment leaves the former file or the new one."""
    with atomic_write(path) as beside:
        torch.save(content, beside)


GO_ON = "Move the file away and start again with --c: it goes on from what else is there."


def load_safely(path: Path, device: torch.device, keys: set[str], fix: str = GO_ON) -> dict[str, Any]:
    """Loads a checkpoint of ours or of nnU-Net's, by weights_only=True.

    Raises:
        InputError: the file cannot be read, has changed since it was written, holds more than tensors and plain
            values, or lacks one of the keys.
    """
    expected = f"a checkpoint with the keys {', '.join(sorted(keys))}"
    try:
        with zipfile.ZipFile(path) as archive:
            changed = archive.testzip()  # torch itself looks at no checksum: a flipped bit would be a wrong weight
        if changed:
            raise zipfile.BadZipFile(f"wrong checksum of {changed}")
        with torch.serialization.safe_globals(NUMPY_SCALARS):
            content = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # zipfile, torch and a mangled pickle have errors of many kinds
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        reason = next((line for line in lines if line.startswith("WeightsUnpickler error")), lines[0]).split(". ")[0]
        raise InputError(str(path), f"an unreadable file ({reason})", expected, fix) from error
    if not isinstance(content, dict) or not keys <= content.keys():
        found = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise InputError(str(path), f"the content {found}", expected, fix)
    return content


def load_weights(module: nn.Module, weights: dict[str, torch.Tensor], path: Path) -> None:
    """Gives a module the weights that `load_safely` read from the file.

    Raises:
        InputError: they are another network's.
    """
    try:
        module.load_state_dict(weights)
    except (RuntimeError, TypeError) as error:
        # torch names each tensor in a line of its own
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            str(path),
            f"weights of another network ({reason} ...)",
            f"those of {type(module).__name__} as it is planned now",
            "Go back to the former plans, or start again without --c.",
        ) from error
