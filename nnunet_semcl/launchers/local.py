"""Trainings as processes of this machine, one at a time on each GPU or on its share of the CPU."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from threading import Thread

from nnunet_semcl.launchers.training import ENDED, RUNNING, Training

GRACE = 60.0  # seconds for a training to end after SIGTERM
LAUNCHER = "NNUNET_SEMCL_LAUNCHER"  # environment variable of a training: the process that started it


class LocalLauncher:
    """Runs one training at a time on each slot.

    Args:
        device: cuda, cpu or mps.
        slots: ids of GPUs; on another device any names.
    """

    def __init__(self, device: str, slots: Sequence[str]) -> None:
        self.device = device
        self.free = list(slots)
        self.threads = max(1, (os.cpu_count() or 1) // len(slots))
        self.waiting: list[Training] = []
        self.running: dict[str, tuple[Training, subprocess.Popen]] = {}  # by slot

    def launch(self, trainings: Sequence[Training]) -> None:
        self.waiting = list(trainings)

    def look(self) -> None:
        for slot, (training, process) in list(self.running.items()):
            if process.poll() is not None:
                training.state, training.reason = ENDED, f"exit code {process.returncode}"
                del self.running[slot]
                self.free.append(slot)
        while self.free and self.waiting:
            self._start(self.waiting.pop(0), self.free.pop(0))

    def _start(self, training: Training, slot: str) -> None:
        environment = {**os.environ, LAUNCHER: str(os.getpid())}
        if self.device == "cuda":
            environment["CUDA_VISIBLE_DEVICES"] = slot
        elif self.device == "cpu":  # trainings with a thread for each core each would wait for one another
            environment.setdefault("OMP_NUM_THREADS", str(self.threads))
        with training.log.open("a") as output:
            process = subprocess.Popen(
                training.command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        training.state = RUNNING
        self.running[slot] = training, process

    def leave(self) -> str:
        """Ends trainings with their workers: ours write no more after SIGTERM, and all files are intact."""
        processes = [process for _, process in self.running.values()]
        for number in (signal.SIGTERM, signal.SIGKILL):
            for process in processes:
                if process.poll() is None:
                    os.killpg(process.pid, number)
            deadline = time.monotonic() + GRACE
            while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
                time.sleep(0.1)
        return "Stopped. Run the same command again: it goes on after the last epoch of each training."


def end_with_launcher() -> None:
    """In a training: lets it end, with its workers, when its launcher has ended, even by SIGKILL.

    Otherwise it would go on, and the same command again would start a second training of the same fold beside it.
    """
    launcher = os.environ.pop(LAUNCHER, None)
    if launcher is not None:
        Thread(target=_end_after, args=(int(launcher),), daemon=True).start()


def _end_after(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    for number in (signal.SIGTERM, signal.SIGKILL):
        os.killpg(os.getpgrp(), number)  # the launcher has made this process the leader of a group
        time.sleep(GRACE)
