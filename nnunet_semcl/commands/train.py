"""`nnunet-semcl train`: checks the input of a training, then runs nnUNetv2_train with this package's trainers."""

from __future__ import annotations

import os
import sys
from typing import Any

import torch
from nnunetv2.run import run_training as nnunet

from nnunet_semcl.commands.path import add_trainer_path
from nnunet_semcl.files.training_input import check_training_input
from nnunet_semcl.launchers.local import end_with_launcher


def train(arguments: list[str]) -> None:
    """Checks the input, then runs nnUNetv2_train with these arguments and this package's trainers.

    On a CPU nnU-Net takes as many threads as there are cores, for each of several trainings too; with OMP_NUM_THREADS
    set, a training takes so many.

    Raises:
        InputError: see `check_training_input`.
    """
    stock_run_training = nnunet.run_training
    threads = torch.get_num_threads() if "OMP_NUM_THREADS" in os.environ else None

    def checked_run_training(
        dataset: str, configuration: str, fold: str, trainer: str, plans_identifier: str, *rest: Any, **named: Any
    ) -> None:
        check_training_input(dataset, configuration, plans_identifier, fold)
        if threads and named["device"].type == "cpu":
            torch.set_num_threads(threads)
        stock_run_training(dataset, configuration, fold, trainer, plans_identifier, *rest, **named)

    end_with_launcher()
    add_trainer_path()
    sys.argv = ["nnunet-semcl train", *arguments]
    # only nnU-Net can parse its arguments, so the check runs between its parser and its training
    nnunet.run_training = checked_run_training
    try:
        nnunet.run_training_entry()
    finally:
        nnunet.run_training = stock_run_training
