"""Variants of SemCLTrainer, named as nnU-Net names its own: -tr SemCLTrainer_100epochs."""

from __future__ import annotations

from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoMirroring import (
    nnUNetTrainerNoMirroring,
)

from nnunet_semcl.methods.semcl.trainer import SemCLTrainer


class SemCLTrainer_5epochs(SemCLTrainer):
    num_coarse_epochs, num_pretraining_epochs, num_epochs = 1, 2, 5


class SemCLTrainer_100epochs(SemCLTrainer):
    num_coarse_epochs, num_pretraining_epochs, num_epochs = 5, 10, 100


class SemCLTrainer_250epochs(SemCLTrainer):
    num_coarse_epochs, num_pretraining_epochs, num_epochs = 10, 25, 250


class SemCLTrainer_fewLabels(SemCLTrainer):
    """nnU-Net's 1000 epochs in all, most of them in contrast under masks of the unlabelled cases: the shares that
    benchmarks/label_efficiency.py measures."""

    num_coarse_epochs, num_pretraining_epochs, num_epochs = 250, 700, 50


class SemCLTrainer_noUnlabelled(SemCLTrainer):
    """Contrast over the labelled cases alone."""

    use_unlabelled = False


class SemCLTrainerNoMirroring(SemCLTrainer, nnUNetTrainerNoMirroring):
    """No mirroring in any phase, for data where left and right are different objects."""
