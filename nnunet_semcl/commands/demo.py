"""`nnunet-semcl demo`: from no data at all to a table of Dice, by nnU-Net's own commands and in minutes."""

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

MARKER = ".nnunet_semcl_demo"  # lies in every demo's folder: without it nothing is removed
DATASET_ID = "999"
CONFIGURATION = "2d"  # on so few steps far ahead of 3d_fullres
PLANS = "nnUNetTinyPlans"
TRAINERS = ("nnUNetTrainerDemo", "SemCLTrainerDemo")
STEPS = 8
LOG_LINES_SHOWN = 20


def run_demo(folder: Path) -> None:
    """Trains nnU-Net with and without pretraining on a phantom and prints the Dice of both on held-out cases.

    Data, trained networks, predictions, logs, pictures: all lies in the folder. It takes about five minutes on two
    CPU cores; a GPU is used where there is one. Variables of nnU-Net that are set already and only concern speed
    stay as they are.

    Raises:
        InputError: the folder holds something else than a former demo, or a command failed.
    """
    started = time.monotonic()
    folder = folder.resolve()
    _start_afresh(folder)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(f"A demo on the {'GPU' if device == 'cuda' else 'CPU: about 5 minutes on two cores'}, in {folder}")

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
    """Runs a command of this Python's environment in the log's folder, its output going to the log.

    Raises:
        InputError: there is no such command, or it failed; then with the last lines of its log.
    """
    places = os.pathsep.join((str(Path(sys.executable).parent), environment.get("PATH", "")))
    program = shutil.which(command[0], path=places)
    if program is None:
        raise InputError(command[0], "no such command", "one beside Python's", "Install nnunet-semcl with pip.")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output:
        result = subprocess.run(
            [program, *command[1:]], stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=log.parent
        )
    if result.returncode != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:])
        raise InputError(
            " ".join(command), f"exit code {result.returncode}", "0", f"The log {log} ends with:\n\n{tail}"
        )


def _commands(folder: Path, dataset: Path, device: str) -> Iterator[tuple[str, list[str]]]:
    data = ["-d", DATASET_ID, "-c", CONFIGURATION]
    # One process each: to start one takes longer than its work on so little data.
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
        # Threads that wait for work without sleeping take the cores from the process that makes the batches.
        speed |= {"nnUNet_n_proc_DA": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    folders = {name: str(folder / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    trainers = {EXT_TRAINER: trainer_path(os.environ.get(EXT_TRAINER))}
    return speed | os.environ | folders | trainers | {"nnUNet_wandb_enabled": "0"}


def _evaluate(folder: Path, dataset: Path) -> str:
    """Draws the pictures and returns what there is to tell."""
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
            f"{trainer}: {of.total} optimiser steps"
            + (f", {of.pretraining} of them pretraining" if of.pretraining else "")
            for trainer, of in steps.items()
        ),
        "So short a training shows how things are done, not which trainer is better.",
        "",
        f"Loss curves: {curves}",
        f"Truth and predictions: {overlay}",
    ]
    report = "\n".join(lines)
    (folder / "dice.txt").write_text(report + "\n")
    return report


def _start_afresh(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(str(folder), "a file", "a folder for the demo", "Name another one with -o.")
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / MARKER).is_file():
            raise InputError(
                str(folder), "files that no demo left", "a new folder, or a former demo's", "Name another one with -o."
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
