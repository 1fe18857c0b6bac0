"""Atomic writes: after a kill or a full disk a file has its previous content or the new one, never a part."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nnunet_semcl.errors import InputError


@contextmanager
def atomic_write(file: Path) -> Iterator[Path]:
    """Yields a temporary path in the same folder; after the block it replaces the file in one step.

    Raises:
        InputError: the file cannot be written. The previous file stays intact.
    """
    temporary = file.with_name(f".{file.name}")
    try:
        yield temporary
        os.replace(temporary, file)
    except (OSError, RuntimeError) as error:  # torch and blosc2 raise RuntimeError on a full disk
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if "CUDA" in str(error):  # the GPU's error, met while its tensors are saved
            raise
        if not file.parent.is_dir():  # torch has a RuntimeError for it
            error = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        raise InputError(
            f"cannot write {file}: {_reason(error, file.parent)}",
            f"{_remedy(error, file)}, then run the same command again (a training: with --c).",
        ) from error


def _reason(error: OSError | RuntimeError, folder: Path) -> str:
    if isinstance(error, OSError) and error.errno != errno.ENOSPC:
        return error.strerror or str(error)
    text = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
    return f"{text} ({shutil.disk_usage(folder).free / 2**20:.0f} MB free)"


def _remedy(error: OSError | RuntimeError, file: Path) -> str:
    if isinstance(error, (IsADirectoryError, FileExistsError)):
        return "Move the folder of this name away"
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return f"Create the folder {file.parent}"
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"Give yourself permission to write in {file.parent}"
    return "Free some space"
