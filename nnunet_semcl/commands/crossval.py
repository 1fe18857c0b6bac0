"""`nnunet-semcl crossval`: trains every fold with every trainer, goes on where it was stopped, and compares them."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, Any

from filelock import FileLock, Timeout
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

from nnunet_semcl.commands.compare import compare_trainers
from nnunet_semcl.commands.path import add_trainer_path
from nnunet_semcl.errors import InputError, access_error
from nnunet_semcl.evaluation.compare_cases import Options
from nnunet_semcl.files.datasets import find_dataset
from nnunet_semcl.files.training_input import check_training_input
from nnunet_semcl.files.training_progress import Progress, read_progress

SECONDS = 1.0  # between two looks at the trainings
LINE_EVERY = 60.0  # seconds between two tables in a log
GRACE = 60.0  # seconds for a training to end after SIGTERM


@dataclass
class Fold:
    """A training of one trainer on one fold.

    Attributes:
        trainer, fold: as nnU-Net knows them.
        folder: of the fold in nnUNet_results.
        log: what the training prints.
        process: of the training, if it was started.
        slot: what it runs on.
    """

    trainer: str
    fold: str
    folder: Path
    log: Path
    process: subprocess.Popen | None = None
    slot: str = ""
    output: IO[str] | None = field(default=None, repr=False)

    @property
    def exit_code(self) -> int | None:
        return None if self.process is None else self.process.poll()

    def state(self, progress: Progress) -> str:
        if self.process is not None and self.exit_code is None:
            return "running"
        if progress.is_finished:
            return "finished"
        return "waiting" if self.process is None else f"died ({self.exit_code})"


@dataclass(frozen=True)
class CrossValidation:
    """What to train, and where.

    Attributes:
        dataset, configuration, plans_identifier: as nnU-Net knows them.
        trainers: names, the first for comparison.
        folds: numbers, or "all".
        device: cuda, cpu or mps.
        slots: one training at a time runs on each: ids of GPUs, or on another device any names.
    """

    dataset: str
    configuration: str
    plans_identifier: str
    trainers: Sequence[str]
    folds: Sequence[str]
    device: str
    slots: Sequence[str]


def run_crossval(cross: CrossValidation, options: Options) -> int:
    """Trains what is not finished, and compares the trainers if there are several. Returns 1 if a training died.

    Args:
        cross: what to train.
        options: of the comparison.

    Raises:
        InputError: a trainer, the configuration or a fold does not exist or is invalid; the report's folder exists;
            another such command runs.
        SystemExit: after SIGTERM or Ctrl-C, when the running trainings have ended.
    """
    add_trainer_path()
    preprocessed = find_dataset(cross.dataset)
    for trainer in cross.trainers:
        _check_trainer(trainer)
    for fold in cross.folds:
        check_training_input(preprocessed.name, cross.configuration, cross.plans_identifier, fold)
    if len(cross.trainers) > 1 and options.output.exists():
        raise InputError(f"{options.output} exists already", "Choose a new folder with -o; nothing is overwritten.")
    results = _results(preprocessed.name)
    logs = results / f"crossval_{cross.plans_identifier}_{cross.configuration}"
    try:
        logs.mkdir(parents=True, exist_ok=True)
        lock = FileLock(logs / ".lock", blocking=False)
        lock.acquire()
    except Timeout as error:
        raise InputError(f"another crossval is running: {logs}", "Wait for it, or stop it.") from error
    except OSError as error:
        raise access_error(error, logs, "nnUNet_results") from error
    folds = [_fold(cross, results, logs, trainer, fold) for fold in cross.folds for trainer in cross.trainers]
    with lock:
        died = _run_all(cross, folds)
    for dead in died:
        print(f"{dead.trainer}, fold {dead.fold} died with exit code {dead.exit_code}: see {dead.log}")
    if died:
        print("Run the same command again: it continues them, and trains no finished fold again.")
    if len(cross.trainers) > 1:
        _compare(cross, folds, options)
    return 1 if died else 0


def _fold(cross: CrossValidation, results: Path, logs: Path, trainer: str, fold: str) -> Fold:
    model = results / f"{trainer}__{cross.plans_identifier}__{cross.configuration}"
    return Fold(trainer, fold, model / f"fold_{fold}", logs / f"{trainer}_fold_{fold}.txt")


def _results(dataset: str) -> Path:
    value = os.environ.get("nnUNet_results")
    if not value:
        raise InputError("nnUNet_results is not set", "export nnUNet_results=/path/to/nnUNet_results")
    return Path(value, dataset)


def _check_trainer(name: str) -> None:
    try:
        with redirect_stdout(io.StringIO()):  # nnU-Net says where it looks
            found = recursive_find_trainer_class_by_name(name)
    except RuntimeError:  # nnU-Net's, where it finds none
        found = None
    if found is None or not issubclass(found, nnUNetTrainer):
        raise InputError(
            f"-tr {name}: nnU-Net finds no trainer of this name", "Correct it; nnunet-semcl doctor lists ours."
        )


def _run_all(cross: CrossValidation, folds: list[Fold]) -> list[Fold]:
    """Runs what is not finished, one training on each slot. Returns those that died."""
    waiting = [fold for fold in folds if not read_progress(fold.folder).is_finished]
    table = Table(folds)
    table.show()
    running: list[Fold] = []
    stopped = _on_signals()
    try:
        while waiting or running:
            free = [slot for slot in cross.slots if slot not in {fold.slot for fold in running}]
            for slot in free[: len(waiting)]:
                running.append(_start(cross, waiting.pop(0), slot))
            time.sleep(SECONDS)
            ended = [fold for fold in running if fold.exit_code is not None]
            running = [fold for fold in running if fold.exit_code is None]
            table.show(now=bool(ended))
    finally:
        if running:
            _end(running)
            print("Stopped. Run the same command again: it goes on after the last epoch of each training.")
        stopped()
    return [fold for fold in folds if fold.exit_code and not read_progress(fold.folder).is_finished]


def _start(cross: CrossValidation, fold: Fold, slot: str) -> Fold:
    command = [sys.executable, "-m", "nnunet_semcl.cli", "train", cross.dataset, cross.configuration, fold.fold]
    # With --c nnU-Net continues what was interrupted, and starts what has no checkpoint.
    command += ["-tr", fold.trainer, "-p", cross.plans_identifier, "-device", cross.device, "--c"]
    environment = os.environ | ({"CUDA_VISIBLE_DEVICES": slot} if cross.device == "cuda" else {})
    fold.output = fold.log.open("a")
    fold.slot = slot
    fold.process = subprocess.Popen(
        command, env=environment, stdout=fold.output, stderr=subprocess.STDOUT, start_new_session=True
    )
    return fold


def _end(running: list[Fold]) -> None:
    """Ends trainings with their workers: ours write no more after SIGTERM, and all files are intact."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        for fold in running:
            if fold.process is not None and fold.exit_code is None:
                os.killpg(fold.process.pid, number)
        deadline = time.monotonic() + GRACE
        while any(fold.exit_code is None for fold in running) and time.monotonic() < deadline:
            time.sleep(0.1)


def _on_signals() -> Any:
    """Makes SIGTERM and Ctrl-C end this process in order. Returns what restores the former handlers."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    return lambda: [signal.signal(number, handler) for number, handler in previous.items()]


def _compare(cross: CrossValidation, folds: list[Fold], options: Options) -> None:
    unfinished = {fold.fold for fold in folds if not read_progress(fold.folder).is_finished}
    common = [fold for fold in cross.folds if fold not in unfinished]
    if not common:
        print("No fold is finished by all trainers, so there is nothing to compare.")
        return
    if unfinished:
        print(f"Compared without unfinished folds: {' '.join(sorted(unfinished))}")
    compare_trainers(cross.dataset, cross.configuration, cross.trainers, cross.plans_identifier, common, options)


class Table:
    """All trainings: on a terminal drawn anew each time, in a log once a minute and when a training ends."""

    def __init__(self, folds: list[Fold]) -> None:
        self.folds = folds
        self.shown = 0.0
        self.lines = 0

    def show(self, now: bool = False) -> None:
        on_terminal = sys.stdout.isatty()
        if not (on_terminal or now) and time.monotonic() - self.shown < LINE_EVERY and self.lines:
            return
        lines = table_lines(self.folds)
        if on_terminal and self.lines:
            print(f"\x1b[{self.lines}F\x1b[J", end="")
        print("\n".join(lines), flush=True)
        self.shown, self.lines = time.monotonic(), len(lines)


def table_lines(folds: Sequence[Fold]) -> list[str]:
    """A header and a line for each training."""
    rows = [("trainer", "fold", "state", "phase", "epoch", "pseudo Dice", "time left", "Dice")]
    for fold in folds:
        progress = read_progress(fold.folder)
        state = fold.state(progress)
        now = state == "running" or state.startswith("died")
        epoch = f"{progress.epoch}/{progress.epochs}" if progress.epochs else str(progress.epoch or "")
        rows.append(
            (
                fold.trainer,
                fold.fold,
                state,
                progress.phase if now else "",
                epoch if now else "",
                "" if progress.pseudo_dice is None or not now else f"{progress.pseudo_dice:.3f}",
                _duration(progress.seconds_left) if state == "running" else "",
                "" if progress.dice is None else f"{progress.dice:.3f}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"
