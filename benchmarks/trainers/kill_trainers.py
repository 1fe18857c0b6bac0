"""Trainers of benchmarks/kills.py: every phase, some seconds in all, and the same bits each time."""

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_semcl.pretraining import phase
from nnunet_semcl.training.ideal_trainer import IDEALTrainer
from nnunet_semcl.training.semcl_trainer import SemCLTrainer

phase.HELD_BACK_BATCHES = 1


class Seconds(nnUNetTrainer):
    epochs_before_training, epochs_of_training = 6, 4

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = self.epochs_of_training
        self.num_iterations_per_epoch = 3
        self.num_val_iterations_per_epoch = 1
        self.num_pretraining_epochs = self.epochs_before_training
        self.num_pretraining_iterations_per_epoch = 3
        self.num_coarse_epochs = 3
        self.seed = 0


class SemCLSeconds(Seconds, SemCLTrainer):
    pass


class IDEALSeconds(Seconds, IDEALTrainer):
    epochs_before_training, epochs_of_training = 2, 12  # of its two phases this one holds more
