"""Training on a shared cluster: a second process on the same fold, and SIGTERM from the scheduler."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from nnunet_semcl.errors import InputError

LOCK_NAME = ".lock"
RAISE_AGAIN = 5.0  # seconds after a SIGTERM whose SystemExit got lost
EXIT_CODE = 128 + signal.SIGTERM  # as in shells


def access_error(error: OSError) -> InputError:
    """Turns an error of the operating system into one that names the file and the fix."""
    return InputError(
        f"cannot use {error.filename}: {error.strerror}",
        "Give yourself permission to read and write there, or set nnUNet_results to another folder.",
    )


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Locks a fold's folder. The operating system releases the lock when the process ends, however it ends.

    Raises:
        InputError: another process holds the lock, or the folder cannot be written.
    """
    lock = FileLock(folder / LOCK_NAME, blocking=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(f"another process is training this fold: {folder}", "Wait for it, or stop it.") from error
    except OSError as error:
        raise access_error(error) from error
    with lock:
        yield


@contextmanager
def on_sigterm(report: Callable[[], None]) -> Iterator[None]:
    """On SIGTERM calls `report` and raises SystemExit.

    The files on disk are intact at any moment, so nothing has to be finished: the last epoch's checkpoint remains.
    """
    main_process = os.getpid()
    stopped = False

    def stop(number: int, frame: object) -> None:
        nonlocal stopped
        if os.getpid() != main_process:
            os._exit(EXIT_CODE)  # a worker, which inherited this handler
        stopped = True
        # Python swallows an exception in some callbacks, such as those around a fork: raise it until it gets through.
        signal.setitimer(signal.ITIMER_REAL, RAISE_AGAIN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # otherwise torch raises an error because a worker has ended
        raise SystemExit(EXIT_CODE)

    previous_handlers = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGALRM)}
    try:
        yield
    except BaseException as error:
        signal.setitimer(signal.ITIMER_REAL, 0)
        # Any other error after the signal is a consequence of it: the workers received it too.
        if not stopped:
            raise
        report()
        raise SystemExit(EXIT_CODE) from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)  # whose default handler would end the process
        for number, handler in previous_handlers.items():
            signal.signal(number, handler)
