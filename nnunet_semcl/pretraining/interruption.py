"""Training on a shared cluster: a second process on the same fold, and SIGTERM from the scheduler."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from filelock import FileLock, Timeout

from nnunet_semcl.errors import InputError, access_error

LOCK_NAME = ".lock"
RAISE_AGAIN = 5.0  # seconds after a SIGTERM whose SystemExit got lost
CANNOT_WRITE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOENT, errno.ENOSPC, errno.EDQUOT)
EXIT_CODE = 128 + signal.SIGTERM  # as in shells


@contextmanager
def exclusive(folder: Path, warn: Callable[[str], None]) -> Iterator[None]:
    """Locks a fold's folder. The operating system releases the lock when the process ends, however it ends.

    Where the file system knows no locks, training goes on with a warning: only a second process may stop it.

    Raises:
        InputError: another process holds the lock, or the folder cannot be written.
    """
    lock = FileLock(folder / LOCK_NAME, blocking=False)
    try:
        lock.acquire()
    except Timeout as error:
        problem = f"another process is training this fold: {folder} (it holds {folder / LOCK_NAME})"
        raise InputError(problem, "Wait for it, or stop it.") from error
    except (OSError, NotImplementedError) as error:
        if getattr(error, "errno", None) in CANNOT_WRITE:
            raise access_error(cast("OSError", error), folder, "nnUNet_results") from error
        warn(
            f"WARNING: {folder / LOCK_NAME} cannot be locked ({' '.join(str(error).split())}). Training goes on: start "
            "no second one of this fold"
        )
        yield
        return
    with lock:
        yield


@contextmanager
def on_sigterm(report: Callable[[], None]) -> Iterator[None]:
    """On SIGTERM calls `report` and raises SystemExit.

    The files on disk are intact at any moment, so nothing has to be finished: the last epoch's checkpoint remains.
    """
    if threading.current_thread() is not threading.main_thread():  # Python sets handlers there alone
        yield
        return
    main_process = os.getpid()
    stopped = False

    def stop(number: int, frame: object) -> None:
        nonlocal stopped
        if os.getpid() != main_process:
            os._exit(EXIT_CODE)  # a worker, which inherited this handler
        stopped = True
        # Python swallows an exception in some callbacks, such as those around a fork: raise it until it gets through.
        _alarm(RAISE_AGAIN)
        if hasattr(signal, "SIGCHLD"):
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # otherwise torch raises an error because a worker has ended
        raise SystemExit(EXIT_CODE)

    numbers = [
        getattr(signal, name) for name in ("SIGTERM", "SIGALRM") if hasattr(signal, name)
    ]  # Windows has no alarm
    previous_handlers = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    except BaseException as error:
        _alarm(0)
        # Any other error after the signal is a consequence of it: the workers received it too.
        if not stopped:
            raise
        report()
        raise SystemExit(EXIT_CODE) from error
    finally:
        _alarm(0)  # whose default handler would end the process
        for number, handler in previous_handlers.items():
            signal.signal(number, handler)


def _alarm(seconds: float) -> None:
    """Sends this process SIGALRM after so many seconds; 0 takes it back."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)
