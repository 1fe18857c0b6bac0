"""Variants of SemCLTrainer, named like nnU-Net's: -tr SemCLTrainer_100epochs."""

from __future__ import annotations

from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoMirroring import (
    nnUNetTrainerNoMirroring,
)

from nnunet_semcl.methods.semcl.trainer import SemCLTrainer


class SemCLTrainer_5epochs(SemCLTrainer):
    """5 epochs in all."""

    num_epochs = 5


class SemCLTrainer_100epochs(SemCLTrainer):
    """100 epochs in all."""

    num_epochs = 100


class SemCLTrainer_250epochs(SemCLTrainer):
    """250 epochs in all."""

    num_epochs = 250


class SemCLTrainer_noUnlabelled(SemCLTrainer):
    """Pretraining on the labelled cases only."""

    use_unlabelled = False


class SemCLTrainerNoMirroring(SemCLTrainer, nnUNetTrainerNoMirroring):
    """No mirroring in any phase, for data where left and right are different objects."""
