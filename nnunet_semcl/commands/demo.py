"""`nnunet-semcl demo`: from synthetic data to a report in minutes, with nnU-Net's own commands and ours."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from nnunet_semcl.commands.crossval import CrossValidation, run_crossval
from nnunet_semcl.commands.path import EXT_TRAINER, trainer_path
from nnunet_semcl.commands.phantom import write_phantom
from nnunet_semcl.errors import InputError
from nnunet_semcl.evaluation.compare_cases import Options

MARKER = ".nnunet_semcl_demo"  # a file in every demo's folder: no folder without it is ever removed
DATASET_ID = "999"
CASES, LABELLED = 30, 2  # of five parts one is held out, so that 22 training cases are unlabelled
SHAPE = (32, 48, 64)  # small enough for 1000 steps in minutes
VARIATION = 3.0  # patients so unlike that two of them do not show all there is
CONFIGURATION = "2d"  # with so few steps much better than 3d_fullres
PLANS = "nnUNetTinyPlans"
TRAINERS = ("nnUNetTrainerDemo", "SemCLTrainerDemo")
FOLD = "5"  # the first with few labels
TOLERANCE = 2.0  # mm, of surface Dice
STEPS = 5
LOG_LINES_SHOWN = 20
NNUNET_SEMCL = (sys.executable, "-m", "nnunet_semcl.cli")


def run_demo(folder: Path, seed: int) -> None:
    """Trains nnU-Net with and without pretraining on a phantom with few labels, and compares them on held-out cases.

    Everything is written to the folder: data, trained networks, logs, and the report of `nnunet-semcl compare`. The
    demo keeps those environment variables of the user that only affect the speed of nnU-Net.

    Args:
        folder: of a previous demo, which is overwritten, or new.
        seed: of the phantom, and of the choice of its labelled cases.

    Raises:
        InputError: the folder contains files that are not from a previous demo, or a command failed.
    """
    started = time.monotonic()
    folder = folder.resolve()
    _empty_folder(folder)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(f"Demo in {folder}, on the {'GPU' if device == 'cuda' else 'CPU (about 3 minutes on two cores)'}")

    with _step(1, "Drawing a phantom data set"):
        write_phantom(
            folder / "nnUNet_raw", int(DATASET_ID), CASES, test_cases=0, seed=seed, shape=SHAPE, variation=VARIATION
        )
    environment = _environment(folder, device)
    planning = environment | {"nnUNet_n_proc_DA": "1"}  # nnU-Net's planner asks torch for as many threads
    for number, (title, command) in enumerate(_commands(seed), start=2):
        with _step(number, title):
            run_logged(command, folder / "logs" / f"{number}_{title.replace(' ', '_')}.log", planning)
    print(f"[{STEPS}/{STEPS}] Training with {LABELLED} labelled and {CASES * 4 // 5 - LABELLED} unlabelled cases")
    # on a CPU two trainings side by side, with a thread each, are done sooner than one after the other
    slots = ["0"] if device == "cuda" else ["0", "1"]
    cross = CrossValidation(DATASET_ID, CONFIGURATION, PLANS, TRAINERS, [FOLD], device, slots)
    os.environ.update(environment)
    # in this process: when it is killed, the trainings end with it, and the folder is free for the next demo
    if run_crossval(cross, Options(folder / "comparison", None, TOLERANCE, len(slots))) != 0:
        raise InputError("nnunet-semcl crossval: failed", "See the logs that it names above.")
    print(f"Both trainers take the same number of optimiser steps. All files: {folder}")
    print(f"{time.monotonic() - started:.0f} s")


def run_logged(command: list[str], log: Path, environment: dict[str, str]) -> None:
    """Runs a command of this Python environment in the folder of the log and writes its output to the log.

    Raises:
        InputError: the command does not exist, or it failed; the message then ends with the last lines of the log.
    """
    search_path = os.pathsep.join((str(Path(sys.executable).parent), environment.get("PATH", "")))
    program = shutil.which(command[0], path=search_path)
    if program is None:
        raise InputError(
            f"the command {command[0]} is not installed in {Path(sys.executable).parent} or on PATH",
            "Install nnunet-semcl with pip, which also installs nnU-Net's commands.",
        )
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output:
        result = subprocess.run(
            [program, *command[1:]], stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=log.parent
        )
    if result.returncode != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:])
        raise InputError(
            f"{' '.join(command)}: failed with exit code {result.returncode}",
            f"See the end of its log {log}:\n\n{tail}",
        )


def _commands(seed: int) -> Iterator[tuple[str, list[str]]]:
    """What comes before the trainings."""
    # one process: with so little data, starting another takes longer than its work
    plan = ["nnUNetv2_plan_and_preprocess", "-d", DATASET_ID, "-c", CONFIGURATION, "-npfp", "1", "-np", "1"]
    yield "Planning and preprocessing", plan
    yield "Making the plans smaller", [*NNUNET_SEMCL, "plan", "-d", DATASET_ID, "--preset", "tiny"]
    budget = ["label-budget", "-d", DATASET_ID, "--labelled", str(LABELLED), "--seed", str(seed)]
    yield "Hiding labels", [*NNUNET_SEMCL, *budget]


def _environment(folder: Path, device: str) -> dict[str, str]:
    speed = {"nnUNet_def_n_proc": "1", "nnUNet_compile": "false"}
    if device == "cpu":
        # batches made by the training's own process, and one thread: both trainings then repeat bit for bit
        speed |= {"nnUNet_n_proc_DA": "0", "OMP_NUM_THREADS": "1"}
        # glibc keeps the memory of a step for the next one: a fifth faster, the same bits
        speed |= {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**34)}
    folders = {name: str(folder / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    trainers = {EXT_TRAINER: trainer_path(os.environ.get(EXT_TRAINER))}
    return speed | os.environ | folders | trainers | {"nnUNet_wandb_enabled": "0"}


def _empty_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file, not a folder", "Choose a new folder for the demo with -o.")
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / MARKER).is_file():
            raise InputError(
                f"{folder} contains files that are not from a previous demo",
                "Choose a new or empty folder with -o; only the folder of a previous demo is overwritten.",
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).touch()


@contextmanager
def _step(number: int, title: str) -> Iterator[None]:
    print(f"[{number}/{STEPS}] {title} ...", end=" ", flush=True)
    started = time.monotonic()
    try:
        yield
    except BaseException:
        print("failed", flush=True)
        raise
    print(f"{time.monotonic() - started:.0f} s", flush=True)
