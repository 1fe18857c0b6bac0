"""Variants of IDEALTrainer, named as nnU-Net names its own: -tr IDEALTrainer_100epochs."""

from __future__ import annotations

from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoMirroring import (
    nnUNetTrainerNoMirroring,
)

from nnunet_semcl.methods.ideal.trainer import IDEALTrainer


class IDEALTrainer_5epochs(IDEALTrainer):
    num_pretraining_epochs, num_epochs = 2, 5


class IDEALTrainer_100epochs(IDEALTrainer):
    num_pretraining_epochs, num_epochs = 10, 100


class IDEALTrainer_250epochs(IDEALTrainer):
    num_pretraining_epochs, num_epochs = 25, 250


class IDEALTrainer_noPretraining(IDEALTrainer):
    """Training with two decoders alone."""

    num_pretraining_epochs = 0


class IDEALTrainer_noConsistency(IDEALTrainer):
    """Dense contrast alone, then nnU-Net's own training."""

    use_consistency = False


class IDEALTrainerNoMirroring(IDEALTrainer, nnUNetTrainerNoMirroring):
    """No mirroring in any phase, for data where left and right are different objects."""
