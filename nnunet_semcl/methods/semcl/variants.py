"""Variants of SemCLTrainer, named like nnU-Net's: -tr SemCLTrainer_100epochs."""

from __future__ import annotations

from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoMirroring import (
    nnUNetTrainerNoMirroring,
)

from nnunet_semcl.methods.semcl.trainer import SemCLTrainer


class SemCLTrainer_5epochs(SemCLTrainer):
    """5 epochs, after 1 of coarse training and 2 of pretraining."""

    num_coarse_epochs, num_pretraining_epochs, num_epochs = 1, 2, 5


class SemCLTrainer_100epochs(SemCLTrainer):
    """100 epochs, after 5 of coarse training and 10 of pretraining."""

    num_coarse_epochs, num_pretraining_epochs, num_epochs = 5, 10, 100


class SemCLTrainer_250epochs(SemCLTrainer):
    """250 epochs, after 10 of coarse training and 25 of pretraining."""

    num_coarse_epochs, num_pretraining_epochs, num_epochs = 10, 25, 250


class SemCLTrainer_fewLabels(SemCLTrainer):
    """250 coarse, 700 pretraining and 50 training epochs, as in benchmarks/label_efficiency.py."""

    num_coarse_epochs, num_pretraining_epochs, num_epochs = 250, 700, 50


class SemCLTrainer_noUnlabelled(SemCLTrainer):
    """Pretraining on the labelled cases only."""

    use_unlabelled = False


class SemCLTrainerNoMirroring(SemCLTrainer, nnUNetTrainerNoMirroring):
    """No mirroring in any phase, for data where left and right are different objects."""
