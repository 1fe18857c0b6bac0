"""Processes that work beside this one, and end with it."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from threading import Thread


class ProcessPool(ProcessPoolExecutor):
    """Processes that also end when the process that started them is killed.

    They are spawned, as nnU-Net's: CUDA does not survive a fork, nor does a fork the threads of a compressor.

    Args:
        processes: how many.
    """

    start_method = "spawn"

    def __init__(self, processes: int) -> None:
        super().__init__(processes, get_context(self.start_method), _end_with_parent)


def _end_with_parent() -> None:  # pragma: no cover  # in the pool's processes, where coverage does not see it
    parent = parent_process()
    assert parent is not None, "runs in the processes of the pool only"

    def wait() -> None:
        parent.join()
        os._exit(1)

    Thread(target=wait, daemon=True).start()
