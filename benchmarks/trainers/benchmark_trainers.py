"""SemCLTrainer at lengths that a CPU can show."""

import torch
from nnunetv2.training.nnUNetTrainer.variants.optimizer.nnUNetTrainerAdam import nnUNetTrainerAdam

from nnunet_semcl.training.semcl_trainer import SemCLTrainer


class SemCLTrainerBenchmark(SemCLTrainer):
    """1000 pretraining and 750 training steps."""

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = 3
        self.num_pretraining_epochs = 4
        self.num_val_iterations_per_epoch = 10
        self.seed = 0


class SemCLTrainerBenchmarkShort(SemCLTrainerBenchmark):
    """500 pretraining and 500 training steps, for 3D."""

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


class SemCLTrainerBenchmarkLong(SemCLTrainerBenchmark, nnUNetTrainerAdam):
    """1250 pretraining and 1000 training steps, these by AdamW: 13 organs want more of nnU-Net's SGD."""

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = 4
        self.num_pretraining_epochs = 5
