"""The two trainers of `nnunet-semcl demo`: short, and with the same total number of optimiser steps.

Both leave mirroring out, so that left and right stay apart on so few steps, and train with AdamW, which is quicker at
the start than nnU-Net's SGD. That is for the demo alone: for real data nnU-Net's own settings are the ones to compare.
"""

from __future__ import annotations

from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoMirroring import (
    nnUNetTrainerNoMirroring,
)
from nnunetv2.training.nnUNetTrainer.variants.optimizer.nnUNetTrainerAdam import nnUNetTrainerAdam

from nnunet_semcl.methods.semcl.trainer import SemCLTrainer
from nnunet_semcl.pretraining.class_attributes import ClassAttributeTrainer


class nnUNetTrainerDemo(ClassAttributeTrainer, nnUNetTrainerNoMirroring, nnUNetTrainerAdam):
    """nnU-Net for 6 x 50 steps."""

    initial_lr = 2e-2
    num_epochs = 6
    num_iterations_per_epoch = 50
    num_val_iterations_per_epoch = 4


class SemCLTrainerDemo(SemCLTrainer, nnUNetTrainerDemo):
    """The same with its first epoch given up for 50 steps of contrast."""

    num_epochs = nnUNetTrainerDemo.num_epochs - 1
    num_pretraining_epochs = 2
    num_pretraining_iterations_per_epoch = nnUNetTrainerDemo.num_iterations_per_epoch // num_pretraining_epochs
