"""Variants of SemCLTrainer, one class per setting, as nnU-Net names them: -tr SemCLTrainer_100epochs."""

from __future__ import annotations

import torch
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoMirroring import (
    nnUNetTrainerNoMirroring,
)

from nnunet_semcl.training.semcl_trainer import SemCLTrainer


class SemCLTrainer_5epochs(SemCLTrainer):
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
        self.num_coarse_epochs = 1
        self.num_pretraining_epochs = 2


class SemCLTrainer_100epochs(SemCLTrainer):
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
        self.num_coarse_epochs = 5
        self.num_pretraining_epochs = 10


class SemCLTrainer_250epochs(SemCLTrainer):
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
        self.num_coarse_epochs = 10
        self.num_pretraining_epochs = 25


class SemCLTrainer_fewLabels(SemCLTrainer):
    """nnU-Net's 1000 epochs in all, most of them in contrast under masks of the unlabelled cases: the shares that
    benchmarks/label_efficiency.py measures."""

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_coarse_epochs = 250
        self.num_pretraining_epochs = 700
        self.num_epochs = 50


class SemCLTrainer_noUnlabelled(SemCLTrainer):
    """Contrast over the labelled cases alone."""

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.use_unlabelled = False


class SemCLTrainer_noAttention(SemCLTrainer):
    """Contrast between objects without showing the encoder their masks."""

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.use_attention = False


class SemCLTrainer_NoMirroring(SemCLTrainer, nnUNetTrainerNoMirroring):
    """No mirroring in either phase, where left and right are different objects."""
