"""`nnunet-semcl crossval`: trains every fold with every trainer, goes on where it was stopped, and compares them."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from filelock import FileLock, Timeout

from nnunet_semcl.commands.compare import compare_trainers
from nnunet_semcl.commands.path import add_trainer_path
from nnunet_semcl.errors import InputError, access_error
from nnunet_semcl.evaluation.compare_cases import Options
from nnunet_semcl.files.datasets import find_dataset
from nnunet_semcl.files.trainer_classes import find_trainer
from nnunet_semcl.files.training_input import check_training_input
from nnunet_semcl.files.training_progress import read_progress
from nnunet_semcl.launchers.local import LocalLauncher
from nnunet_semcl.launchers.slurm import JobOptions, SlurmLauncher
from nnunet_semcl.launchers.training import ENDED, RUNNING, Launcher, Training

SECONDS = 1.0  # between two looks at the trainings
LINE_EVERY = 60.0  # seconds between two tables in a log


@dataclass(frozen=True)
class CrossValidation:
    """What to train, and where.

    Attributes:
        dataset, configuration, plans_identifier: as nnU-Net knows them.
        trainers: names, the first for comparison.
        folds: numbers, or "all".
        device: cuda, cpu or mps.
        slots: one training at a time runs on each: ids of GPUs, or on another device any names.
        jobs: what each job asks Slurm for; None trains on this machine.
    """

    dataset: str
    configuration: str
    plans_identifier: str
    trainers: Sequence[str]
    folds: Sequence[str]
    device: str
    slots: Sequence[str]
    jobs: JobOptions | None = None


def run_crossval(cross: CrossValidation, options: Options) -> int:
    """Trains what is not finished, and compares the trainers if there are several. Returns 1 if a training died.

    Args:
        cross: what to train.
        options: of the comparison.

    Raises:
        InputError: a trainer, the configuration or a fold does not exist or is invalid; the report's folder exists;
            another such command runs; there is no Slurm.
        SystemExit: after SIGTERM or Ctrl-C.
    """
    add_trainer_path()
    preprocessed = find_dataset(cross.dataset)
    for trainer in cross.trainers:
        find_trainer(trainer)
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
    trainings = [_training(cross, results, logs, trainer, fold) for fold in cross.folds for trainer in cross.trainers]
    with lock:
        launcher: Launcher = LocalLauncher(cross.device, cross.slots)
        if cross.jobs is not None:
            launcher = SlurmLauncher(logs, preprocessed.name, cross.jobs)
        died = _run_all(launcher, trainings)
    for dead in died:
        print(f"{dead.trainer}, fold {dead.fold} died ({dead.reason}): see {dead.log}")
    if died:
        print("Run the same command again: it continues them, and trains no finished fold again.")
    if len(cross.trainers) > 1:
        _compare(cross, trainings, options)
    return 1 if died else 0


def _training(cross: CrossValidation, results: Path, logs: Path, trainer: str, fold: str) -> Training:
    model = results / f"{trainer}__{cross.plans_identifier}__{cross.configuration}"
    command = [sys.executable, "-m", "nnunet_semcl.cli", "train", cross.dataset, cross.configuration, fold]
    # With --c nnU-Net continues what was interrupted, and starts what has no checkpoint.
    command += ["-tr", trainer, "-p", cross.plans_identifier, "-device", cross.device, "--c"]
    return Training(trainer, fold, model / f"fold_{fold}", logs / f"{trainer}_fold_{fold}.txt", command)


def _results(dataset: str) -> Path:
    value = os.environ.get("nnUNet_results")
    if not value:
        raise InputError("nnUNet_results is not set", "export nnUNet_results=/path/to/nnUNet_results")
    return Path(value, dataset)


def _run_all(launcher: Launcher, trainings: Sequence[Training]) -> list[Training]:
    """Runs what is not finished. Returns what died."""
    unfinished = [training for training in trainings if not read_progress(training.folder).is_finished]
    table = Table(trainings)
    restore_signals = _on_signals()
    try:
        launcher.launch(unfinished)
        ended = -1
        while unfinished and ended < len(unfinished):
            launcher.look()
            before, ended = ended, sum(training.state == ENDED for training in unfinished)
            table.show(now=ended > before)
            if ended < len(unfinished):
                time.sleep(SECONDS)
    except BaseException:
        print(launcher.leave())
        raise
    finally:
        restore_signals()
    return [training for training in unfinished if not read_progress(training.folder).is_finished]


def _on_signals() -> Any:
    """Makes SIGTERM and Ctrl-C end this process in order. Returns what restores the previous handlers."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    return lambda: [signal.signal(number, handler) for number, handler in previous.items()]


def _compare(cross: CrossValidation, trainings: Sequence[Training], options: Options) -> None:
    unfinished = {training.fold for training in trainings if not read_progress(training.folder).is_finished}
    common = [fold for fold in cross.folds if fold not in unfinished]
    if not common:
        print("No fold is finished by all trainers, so there is nothing to compare.")
        return
    if unfinished:
        print(f"Compared without unfinished folds: {' '.join(sorted(unfinished))}")
    compare_trainers(cross.dataset, cross.configuration, cross.trainers, cross.plans_identifier, common, options)


class Table:
    """All trainings: on a terminal drawn anew each time, in a log once a minute and when a training ends."""

    def __init__(self, trainings: Sequence[Training]) -> None:
        self.trainings = trainings
        self.shown = float("-inf")
        self.lines = 0

    def show(self, now: bool = False) -> None:
        on_terminal = sys.stdout.isatty()
        if not (on_terminal or now) and time.monotonic() - self.shown < LINE_EVERY:
            return
        lines = table_lines(self.trainings)
        if on_terminal and self.lines:
            print(f"\x1b[{self.lines}F\x1b[J", end="")
        print("\n".join(lines), flush=True)
        self.shown, self.lines = time.monotonic(), len(lines)


def table_lines(trainings: Sequence[Training]) -> list[str]:
    """A header and a line for each training."""
    rows = [("trainer", "fold", "state", "phase", "epoch", "pseudo Dice", "time left", "Dice")]
    for training in trainings:
        progress = read_progress(training.folder)
        died = training.state == ENDED and not progress.is_finished
        state = "finished" if progress.is_finished else f"died ({training.reason})" if died else training.state
        begun = died or training.state == RUNNING
        epoch = f"{progress.epoch}/{progress.epochs}" if progress.epochs else str(progress.epoch or "")
        rows.append(
            (
                training.trainer,
                training.fold,
                state,
                progress.phase if begun else "",
                epoch if begun else "",
                "" if progress.pseudo_dice is None or not begun else f"{progress.pseudo_dice:.3f}",
                _duration(progress.seconds_left) if training.state == RUNNING else "",
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
