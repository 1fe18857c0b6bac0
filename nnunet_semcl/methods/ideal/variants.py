"""Variants of IDEALTrainer, named like nnU-Net's: -tr IDEALTrainer_100epochs."""

from __future__ import annotations

from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoMirroring import (
    nnUNetTrainerNoMirroring,
)

from nnunet_semcl.methods.ideal.settings import IDEALSettings
from nnunet_semcl.methods.ideal.trainer import IDEALTrainer


class IDEALTrainer_5epochs(IDEALTrainer):
    """5 epochs in all."""

    num_epochs = 5


class IDEALTrainer_100epochs(IDEALTrainer):
    """100 epochs in all."""

    num_epochs = 100


class IDEALTrainer_250epochs(IDEALTrainer):
    """250 epochs in all."""

    num_epochs = 250


class IDEALTrainer_noPretraining(IDEALTrainer):
    """No dense contrast, only training with two decoders."""

    def epoch_shares(self, settings: IDEALSettings) -> tuple[dict[str, float], str]:
        return {"pretraining": 0.0}, "a variant without pretraining"


class IDEALTrainer_noConsistency(IDEALTrainer):
    """Dense contrast, then nnU-Net's own training, without a second decoder."""

    use_consistency = False


class IDEALTrainerNoMirroring(IDEALTrainer, nnUNetTrainerNoMirroring):
    """No mirroring in any phase, for data where left and right are different objects."""
