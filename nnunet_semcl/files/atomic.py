"""Files that are never half-written: a kill or a full disk at any moment leaves the former file or the new one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nnunet_semcl.errors import InputError


@contextmanager
def atomic_write(file: Path) -> Iterator[Path]:
    """Gives a name beside the file to write to; what was written there takes the file's place as a whole.

    Raises:
        InputError: it cannot be written; the former file stays.
    """
    beside = file.with_name(f".{file.name}")
    try:
        yield beside
        os.replace(beside, file)
    except (OSError, RuntimeError) as error:  # RuntimeError is what torch and blosc2 make of a full disk
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise InputError(
            str(file),
            f"that it cannot be written ({_reason(error, file.parent)})",
            "a folder that takes files",
            "Make room or mend the rights, then go on with the same command; a training with --c.",
        ) from error


def _reason(error: OSError | RuntimeError, folder: Path) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    file_system = os.statvfs(folder)
    free = file_system.f_bavail * file_system.f_frsize
    return f"{str(error).splitlines()[0]}; {free / 2**20:.0f} MB are free"
