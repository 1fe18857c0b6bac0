"""What the tests' nnUNet_extTrainer points at: trainers that are over in seconds."""

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_semcl.pretraining import phase
from nnunet_semcl.training.ideal_trainer import IDEALTrainer
from nnunet_semcl.training.semcl_trainer import SemCLTrainer

phase.HELD_BACK_BATCHES = 1  # sixteen after each epoch take longer than all of these trainings


class nnUNetTrainerShort(nnUNetTrainer):
    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = 1
        self.num_iterations_per_epoch = 3
        self.num_val_iterations_per_epoch = 1


class SemCLTrainerShort(SemCLTrainer, nnUNetTrainerShort):
    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_pretraining_epochs = 2
        self.num_pretraining_iterations_per_epoch = 3
        self.num_coarse_epochs = 1
        self.seed = 7


class SemCLTrainerManyEpochs(SemCLTrainerShort):
    """Long enough in pretraining to be killed there."""

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_pretraining_epochs = 8
        self.num_pretraining_iterations_per_epoch = 4


class IDEALTrainerShort(IDEALTrainer, nnUNetTrainerShort):
    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = 2
        self.num_pretraining_epochs = 2
        self.num_pretraining_iterations_per_epoch = 3
        self.seed = 7
