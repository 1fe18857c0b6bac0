"""The two trainers of `nnunet-semcl demo`: short, and with the same total number of optimiser steps.

Both leave mirroring out, so that left and right stay apart on so few steps, and train with AdamW, which is quicker at
the start than nnU-Net's SGD. That is for the demo alone: for real data nnU-Net's own settings are the ones to compare.
"""

from __future__ import annotations

import torch
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoMirroring import (
    nnUNetTrainerNoMirroring,
)
from nnunetv2.training.nnUNetTrainer.variants.optimizer.nnUNetTrainerAdam import nnUNetTrainerAdam

from nnunet_semcl.training.semcl_trainer import SemCLTrainer


class nnUNetTrainerDemo(nnUNetTrainerNoMirroring, nnUNetTrainerAdam):
    """nnU-Net for 6 x 50 steps."""

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.initial_lr = 2e-2
        self.num_epochs = 6
        self.num_iterations_per_epoch = 50
        self.num_val_iterations_per_epoch = 4


class SemCLTrainerDemo(SemCLTrainer, nnUNetTrainerDemo):
    """The same with its first epoch given up for 50 steps of contrast."""

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
        self.num_pretraining_iterations_per_epoch = self.num_iterations_per_epoch // self.num_pretraining_epochs
        self.num_epochs -= 1
