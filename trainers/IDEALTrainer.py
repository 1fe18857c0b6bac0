from nnunet_semcl.training.ideal_trainer import IDEALTrainer
from nnunet_semcl.training.ideal_variants import (
    IDEALTrainer_5epochs,
    IDEALTrainer_100epochs,
    IDEALTrainer_250epochs,
    IDEALTrainer_noConsistency,
    IDEALTrainer_NoMirroring,
    IDEALTrainer_noPretraining,
)

__all__ = [
    "IDEALTrainer",
    "IDEALTrainer_5epochs",
    "IDEALTrainer_100epochs",
    "IDEALTrainer_250epochs",
    "IDEALTrainer_NoMirroring",
    "IDEALTrainer_noConsistency",
    "IDEALTrainer_noPretraining",
]
