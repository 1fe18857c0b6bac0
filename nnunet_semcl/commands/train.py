"""`nnunet-semcl train`: nnUNetv2_train with this package's trainers, after a check of what it is about to read."""

from __future__ import annotations

import sys
from typing import Any

from nnunetv2.run import run_training as nnunet

from nnunet_semcl.commands.path import add_trainer_path
from nnunet_semcl.files.training_input import check_training_input


def train(arguments: list[str]) -> None:
    """Runs nnUNetv2_train with these arguments.

    Raises:
        InputError: see `check_training_input`.
    """
    stock_run_training = nnunet.run_training

    def checked_run_training(
        dataset: str, configuration: str, fold: str, trainer: str, plans_identifier: str, *rest: Any, **named: Any
    ) -> None:
        check_training_input(dataset, configuration, plans_identifier, fold)
        stock_run_training(dataset, configuration, fold, trainer, plans_identifier, *rest, **named)

    add_trainer_path()
    sys.argv = ["nnunet-semcl train", *arguments]
    # nnU-Net alone knows its arguments: the check goes between its own parser and its training
    nnunet.run_training = checked_run_training
    try:
        nnunet.run_training_entry()
    finally:
        nnunet.run_training = stock_run_training
