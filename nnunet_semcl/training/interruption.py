"""What happens to a training on a shared cluster: a second process on the same fold, SIGTERM from the scheduler."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from nnunet_semcl.errors import InputError

LOCK_NAME = ".lock"


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Holds a fold's folder. The system lets go of it when the process ends, however it ends.

    Raises:
        InputError: another process holds it.
    """
    try:
        with FileLock(folder / LOCK_NAME, blocking=False):
            yield
    except Timeout as error:
        raise InputError(
            str(folder), "another process that trains in it", "one at a time", "Wait for it, or end it."
        ) from error


@contextmanager
def on_sigterm(tell: Callable[[], None]) -> Iterator[None]:
    """Ends the process by SystemExit, 128 + 15 as shells have it, after `tell`.

    What is on the disk is whole at any moment, so there is nothing to wait for: the last epoch's checkpoint stays.
    """
    main_process = os.getpid()

    def stop(number: int, frame: object) -> None:
        if os.getpid() == main_process:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # else torch raises an error of its own: a worker has ended
            tell()
            raise SystemExit(128 + number)
        os._exit(128 + number)  # a worker, which inherited this handler

    former = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)
