"""The two trainers of `nnunet-semcl demo`: short, and with the same total number of optimiser steps.

Neither uses mirroring, so that a few steps are enough to tell left from right. Both use AdamW, which learns faster at
the start than nnU-Net's SGD. Both choices are for the demo only: on real data, compare with nnU-Net's own settings.
"""

from __future__ import annotations

from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoMirroring import (
    nnUNetTrainerNoMirroring,
)
from nnunetv2.training.nnUNetTrainer.variants.optimizer.nnUNetTrainerAdam import nnUNetTrainerAdam

from nnunet_semcl.methods.semcl.trainer import SemCLTrainer
from nnunet_semcl.pretraining.class_attributes import ClassAttributeTrainer


class nnUNetTrainerDemo(ClassAttributeTrainer, nnUNetTrainerNoMirroring, nnUNetTrainerAdam):
    """nnU-Net with 6 epochs of 50 steps."""

    initial_lr = 2e-2
    num_epochs = 6
    num_iterations_per_epoch = 50
    num_val_iterations_per_epoch = 4


class SemCLTrainerDemo(SemCLTrainer, nnUNetTrainerDemo):
    """The same number of steps in all: one epoch of pretraining, five of training."""
