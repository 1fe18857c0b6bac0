"""`nnunet-semcl pretrain`: a trainer's pretraining alone, also on a data set without any label."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from nnunetv2.run.run_training import get_trainer_from_args
from torch.backends import cudnn

from nnunet_semcl.commands.path import add_trainer_path
from nnunet_semcl.data.unlabelled import unlabelled_cases
from nnunet_semcl.errors import InputError
from nnunet_semcl.files.advice import UNLABELLED
from nnunet_semcl.files.preprocessed import preprocessed_cases
from nnunet_semcl.files.trainer_classes import find_trainer
from nnunet_semcl.files.training_input import check_cases, check_configuration
from nnunet_semcl.pretraining.trainer import PRETRAINED_NAME, PretrainingTrainer


def pretrain(
    dataset_name_or_id: str,
    configuration: str,
    fold: str,
    trainer_name: str,
    plans_identifier: str,
    device: str,
    resume: bool,
) -> None:
    """Pretrains as nnUNetv2_train does with this trainer, and prints how to go on.

    Args:
        dataset_name_or_id: a data set in nnUNet_preprocessed.
        configuration: of the plans.
        fold: "all", or a number.
        trainer_name: a trainer of this package, or in a folder of nnUNet_extTrainer.
        plans_identifier: of the plans.
        device: cuda, cpu or mps.
        resume: whether to continue an interrupted pretraining.

    Raises:
        InputError: the trainer has no pretraining, or not for these cases; or see `check_configuration`, `check_cases`
            and `PretrainingTrainer.check_input`.
    """
    add_trainer_path()
    data = check_configuration(dataset_name_or_id, configuration, plans_identifier)
    trainer_class = _find(trainer_name)
    images_alone = not preprocessed_cases(data) and bool(unlabelled_cases(data.with_name(data.name + UNLABELLED)))
    if not images_alone:
        check_cases(data, configuration, plans_identifier, fold)
    elif trainer_class.needs_labels:
        raise InputError(f"{data.parent.name} has no labelled case, but {trainer_name} needs some", "Use IDEALTrainer.")
    elif fold != "all":
        raise InputError(f"-f {fold}: {data.parent.name} has no labelled case, so it has no folds", "Leave -f out.")
    _set_threads(device)
    number = fold if fold == "all" else int(fold)
    trainer: PretrainingTrainer = get_trainer_from_args(
        data.parent.name, configuration, number, trainer_name, plans_identifier, resume, torch.device(device)
    )
    trainer.images_alone = images_alone
    with trainer.exclusive():
        trainer.initialize()
        trainer.pretrain()
    file = Path(trainer.output_folder, PRETRAINED_NAME)
    if not file.is_file():
        raise InputError(
            f"{trainer_name} has no pretraining for {configuration}: no epoch is left for it, or it is a cascade",
            "Name another configuration or trainer, or set shares.",
        )
    print(f"Pretrained: {file}\nOther data sets start with it by the setting start_from.")
    if not images_alone:
        command = f"nnUNetv2_train {data.parent.name} {configuration} {fold} -tr {trainer_name} -p {plans_identifier}"
        print(f"This training goes on from it: {command} -device {device} --c")


def _find(trainer_name: str) -> type[PretrainingTrainer]:
    found = find_trainer(trainer_name)
    if not issubclass(found, PretrainingTrainer):
        raise InputError(f"-tr {trainer_name} has no pretraining", "Name a trainer such as SemCLTrainer.")
    return found


def _set_threads(device: str) -> None:
    """As nnUNetv2_train sets them."""
    torch.set_num_threads((os.cpu_count() or 1) if device == "cpu" else 1)
    if device == "cuda":
        cudnn.deterministic, cudnn.benchmark = False, True
