"""Files of pretraining that are never half-written and never run foreign code."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from nnunet_semcl.errors import InputError


def save_atomically(content: dict[str, Any], path: Path) -> None:
    """torch.save beside the file, then os.replace: a kill at any moment leaves the former file or the new one."""
    temporary = path.with_name(f".{path.name}")
    torch.save(content, temporary)
    os.replace(temporary, path)


def load_safely(path: Path, device: torch.device, keys: set[str]) -> dict[str, Any]:
    """Loads a checkpoint of pretraining with weights_only=True.

    Raises:
        InputError: the file cannot be read, or lacks one of the keys.
    """
    fix = "Move the file away and start again without --c (pretraining starts anew)."
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(str(path), f"an unreadable file ({reason})", "a checkpoint of pretraining", fix) from error
    if not isinstance(content, dict) or not keys <= content.keys():
        found = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise InputError(str(path), f"the content {found}", f"the keys {', '.join(sorted(keys))}", fix)
    return content
