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
EXIT_CODE = 128 + signal.SIGTERM  # as shells have it


def access_error(error: OSError) -> InputError:
    """What the system refused, as an error that names the file."""
    return InputError(
        str(error.filename),
        f"that the system refuses it ({error.strerror})",
        "a results folder that can be read and written",
        "Mend its rights, or set nnUNet_results to another one.",
    )


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Holds a fold's folder. The system lets go of it when the process ends, however it ends.

    Raises:
        InputError: another process holds it, or it cannot be written.
    """
    lock = FileLock(folder / LOCK_NAME, blocking=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(
            str(folder), "another process that trains in it", "one at a time", "Wait for it, or end it."
        ) from error
    except OSError as error:
        raise access_error(error) from error
    with lock:
        yield


@contextmanager
def on_sigterm(tell: Callable[[], None]) -> Iterator[None]:
    """Ends the process by SystemExit, after `tell`.

    What is on the disk is whole at any moment, so there is nothing to wait for: the last epoch's checkpoint stays.
    """
    main_process = os.getpid()
    stopped = False

    def stop(number: int, frame: object) -> None:
        nonlocal stopped
        if os.getpid() != main_process:
            os._exit(EXIT_CODE)  # a worker, which inherited this handler
        stopped = True
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # else torch raises an error of its own: a worker has ended
        raise SystemExit(EXIT_CODE)

    former = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except BaseException as error:
        # Any other error after the signal is its consequence: the workers were told to end, too.
        if not stopped:
            raise
        tell()
        raise SystemExit(EXIT_CODE) from error
    finally:
        signal.signal(signal.SIGTERM, former)
