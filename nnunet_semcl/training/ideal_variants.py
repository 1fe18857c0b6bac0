"""Variants of IDEALTrainer, one class per setting, as nnU-Net names them: -tr IDEALTrainer_100epochs."""

from __future__ import annotations

import torch
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoMirroring import (
    nnUNetTrainerNoMirroring,
)

from nnunet_semcl.training.ideal_trainer import IDEALTrainer


class IDEALTrainer_5epochs(IDEALTrainer):
    """For trying things out."""

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = 5
        self.num_pretraining_epochs = 2


class IDEALTrainer_100epochs(IDEALTrainer):
    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = 100
        self.num_pretraining_epochs = 10


class IDEALTrainer_250epochs(IDEALTrainer):
    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = 250
        self.num_pretraining_epochs = 25


class IDEALTrainer_noPretraining(IDEALTrainer):
    """Two decoders alone."""

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_pretraining_epochs = 0


class IDEALTrainer_noConsistency(IDEALTrainer):
    """Dense contrast alone, then nnU-Net's own training."""

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.use_consistency = False


class IDEALTrainer_NoMirroring(IDEALTrainer, nnUNetTrainerNoMirroring):
    """No mirroring in either phase, where left and right are different objects."""
