"""The two trainers of `nnunet-semcl demo`: short, and with the same number of optimiser steps in all.

Neither mirrors, so that a few steps are enough to tell left from right. nnU-Net trains by AdamW, which in so few steps
is far better than its SGD; SemCL pretrains by AdamW anyway. On real data, compare with nnU-Net's own settings.

Both are seeded: single runs of so few steps differ by ten points of Dice, and what the demo prints should repeat.
"""

from __future__ import annotations

from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoMirroring import (
    nnUNetTrainerNoMirroring,
)
from nnunetv2.training.nnUNetTrainer.variants.optimizer.nnUNetTrainerAdam import nnUNetTrainerAdam

from nnunet_semcl.methods.semcl.trainer import SemCLTrainer
from nnunet_semcl.pretraining.interruptible_trainer import InterruptibleTrainer


class _Short(InterruptibleTrainer, nnUNetTrainerNoMirroring):
    """20 epochs of 50 steps in all."""

    seed = 0
    num_epochs = 20
    num_iterations_per_epoch = 50
    num_val_iterations_per_epoch = 1


class nnUNetTrainerDemo(_Short, nnUNetTrainerAdam):
    initial_lr = 2e-2


class SemCLTrainerDemo(SemCLTrainer, _Short):
    """10 epochs of coarse training, 9 of pretraining, 1 of nnU-Net's own training by SGD."""
