"""`nnunet-semcl demo`: from synthetic data to a table of Dice in minutes, with nnU-Net's own commands."""

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

from nnunet_semcl.commands.path import EXT_TRAINER, trainer_path
from nnunet_semcl.commands.phantom import LABELS, write_phantom
from nnunet_semcl.errors import InputError
from nnunet_semcl.evaluation.dice_table import dice_by_case, dice_table
from nnunet_semcl.evaluation.overlay import draw_loss_curves, draw_overlay, read_steps
from nnunet_semcl.pretraining.history import LOG_NAME

MARKER = ".nnunet_semcl_demo"  # a file in every demo's folder: no folder without it is ever removed
DATASET_ID = "999"
CONFIGURATION = "2d"  # with so few steps much better than 3d_fullres
PLANS = "nnUNetTinyPlans"
TRAINERS = ("nnUNetTrainerDemo", "SemCLTrainerDemo")
STEPS = 8
LOG_LINES_SHOWN = 20


def run_demo(folder: Path) -> None:
    """Trains nnU-Net with and without pretraining on a phantom and prints the Dice of both on held-out cases.

    Everything is written to the folder: data, trained networks, predictions, logs and figures. The demo takes about
    five minutes on two CPU cores, and uses a GPU if one is available. It keeps those environment variables of the user
    that only affect the speed of nnU-Net.

    Raises:
        InputError: the folder contains files that are not from a previous demo, or a command failed.
    """
    started = time.monotonic()
    folder = folder.resolve()
    _empty_folder(folder)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(f"Demo in {folder}, on the {'GPU' if device == 'cuda' else 'CPU (about 5 minutes on two cores)'}")

    with _step(1, "Drawing a phantom data set"):
        dataset = write_phantom(folder / "nnUNet_raw", int(DATASET_ID))
    environment = _environment(folder, device)
    for number, (title, command) in enumerate(_commands(folder, dataset, device), start=2):
        with _step(number, title):
            run_logged(command, folder / "logs" / f"{number}_{title.replace(' ', '_')}.log", environment)
    with _step(STEPS, "Evaluating"):
        report = _evaluate(folder, dataset)
    print(f"\n{report}\n\nEverything is in {folder} ({time.monotonic() - started:.0f} s)")


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


def _commands(folder: Path, dataset: Path, device: str) -> Iterator[tuple[str, list[str]]]:
    data = ["-d", DATASET_ID, "-c", CONFIGURATION]
    # one process: with so little data, starting another takes longer than its work
    yield "Planning and preprocessing", ["nnUNetv2_plan_and_preprocess", *data, "-npfp", "1", "-np", "1"]
    nnunet_semcl = [sys.executable, "-m", "nnunet_semcl.cli"]
    yield "Making the plans smaller", [*nnunet_semcl, "plan", "-d", DATASET_ID, "--preset", "tiny"]
    for trainer in TRAINERS:
        train = ["nnUNetv2_train", DATASET_ID, CONFIGURATION, "0", "-tr", trainer, "-p", PLANS, "-device", device]
        yield f"Training {trainer}", train
    for trainer in TRAINERS:
        predict = ["nnUNetv2_predict", *data, "-f", "0", "-tr", trainer, "-p", PLANS, "-device", device]
        files = ["-i", str(dataset / "imagesTs"), "-o", str(folder / "predictions" / trainer)]
        yield f"Predicting with {trainer}", [*predict, *files, "-npp", "0", "-nps", "0"]


def _environment(folder: Path, device: str) -> dict[str, str]:
    speed = {"nnUNet_def_n_proc": "1", "nnUNet_compile": "false"}
    if device == "cpu":
        # threads that busy-wait take the cores from the process that makes the batches
        speed |= {"nnUNet_n_proc_DA": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    folders = {name: str(folder / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    trainers = {EXT_TRAINER: trainer_path(os.environ.get(EXT_TRAINER))}
    return speed | os.environ | folders | trainers | {"nnUNet_wandb_enabled": "0"}


def _evaluate(folder: Path, dataset: Path) -> str:
    """Draws the figures, and returns the report that it also writes to dice.txt."""
    organs = {organ: value for organ, value in LABELS.items() if value > 0}
    truth = dataset / "labelsTs"
    predictions = {trainer: folder / "predictions" / trainer for trainer in TRAINERS}
    folds = {
        trainer: folder / "nnUNet_results" / dataset.name / f"{trainer}__{PLANS}__{CONFIGURATION}" / "fold_0"
        for trainer in TRAINERS
    }
    dice = {trainer: dice_by_case(predicted, truth, organs) for trainer, predicted in predictions.items()}
    case = min(dice[TRAINERS[0]])
    overlay, curves = folder / "overlay.png", folder / "loss_curves.png"
    draw_overlay(
        dataset / "imagesTs" / f"{case}_0000.nii.gz",
        truth / f"{case}.nii.gz",
        {trainer: predicted / f"{case}.nii.gz" for trainer, predicted in predictions.items()},
        organs,
        {trainer: cases[case] for trainer, cases in dice.items()},
        overlay,
    )
    draw_loss_curves(folds, LOG_NAME, curves)
    steps = {trainer: read_steps(fold) for trainer, fold in folds.items()}
    lines = [
        f"Mean Dice of {len(dice[TRAINERS[0]])} held-out cases",
        "",
        dice_table(dice),
        "",
        *(
            f"{trainer}: {done.total} optimiser steps"
            + (f", {done.pretraining} of them in pretraining" if done.pretraining else "")
            for trainer, done in steps.items()
        ),
        "A training this short shows how the commands work, not which trainer is better.",
        "",
        f"Loss curves: {curves}",
        f"Ground truth and predictions: {overlay}",
    ]
    report = "\n".join(lines)
    (folder / "dice.txt").write_text(report + "\n")
    return report


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
