"""Checkpoint files: written atomically, and read without running code that they may contain."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from nnunet_semcl.errors import InputError
from nnunet_semcl.files.atomic import atomic_write

# nnU-Net's log holds these besides plain values and tensors; anything else in a checkpoint is refused.
_SCALAR = cast(Callable[..., Any], np.float64(0).__reduce__()[0])
NUMPY_SCALARS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    _SCALAR,
    (_SCALAR, "numpy.core.multiarray.scalar"),  # its name in numpy 1
    np.dtype,
    *(type(np.dtype(kind)) for kind in (np.float32, np.float64, np.int64)),
]
CONTINUE = "Move the file away and start the training again with --c: it continues from the checkpoints that remain."


def save_atomically(content: dict[str, Any], path: Path) -> None:
    """Saves with torch.save; a kill at any moment leaves the previous file or the new one.

    Raises:
        InputError: the file cannot be written.
    """
    with atomic_write(path) as temporary:
        torch.save(content, temporary)


def load_safely(path: Path, device: torch.device, keys: set[str], fix: str = CONTINUE) -> dict[str, Any]:
    """Loads a checkpoint, ours or nnU-Net's, with weights_only=True.

    Args:
        keys: the keys that must be in the checkpoint.
        fix: the advice of an error.

    Raises:
        InputError: the file does not exist, cannot be read, is damaged, contains more than tensors and plain values,
            or lacks a key.
    """
    if not path.exists():  # nnU-Net looks for all but that of --val_best
        raise InputError(f"{path} does not exist", "Leave --val_best out, or train again from the start.")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch verifies no checksum: a flipped bit would give a wrong weight
        if damaged:
            raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
        with torch.serialization.safe_globals(NUMPY_SCALARS):
            content = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # zipfile, torch and damaged pickles raise errors of many kinds
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        reason = next((line for line in lines if line.startswith("WeightsUnpickler error")), lines[0]).split(". ")[0]
        raise InputError(f"{path} is not a readable checkpoint ({reason})", fix) from error
    if not isinstance(content, dict):
        raise InputError(f"{path} contains data of type {type(content).__name__}, not the keys {_listed(keys)}", fix)
    if not keys <= content.keys():
        raise InputError(f"{path} lacks the keys {_listed(keys - content.keys())}, it has {_listed(content)}", fix)
    return content


def load_weights(module: nn.Module, weights: dict[str, torch.Tensor], path: Path) -> None:
    """Loads weights that `load_safely` has read from the file into a module.

    Raises:
        InputError: they belong to another network.
    """
    try:
        module.load_state_dict(weights)
    except (RuntimeError, TypeError) as error:
        # torch gives each tensor a line
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{path}: the weights do not fit the current {type(module).__name__} ({reason} ...)",
            "Restore the plans that they were trained with, or train again from the start, without --c.",
        ) from error


def _listed(keys: Iterable[object]) -> str:
    return ", ".join(sorted(map(str, keys))) or "none"
