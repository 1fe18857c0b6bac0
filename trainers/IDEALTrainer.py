from nnunet_semcl.methods.ideal.trainer import IDEALTrainer
from nnunet_semcl.methods.ideal.variants import (
    IDEALTrainer_5epochs,
    IDEALTrainer_100epochs,
    IDEALTrainer_250epochs,
    IDEALTrainer_noConsistency,
    IDEALTrainer_noPretraining,
    IDEALTrainerNoMirroring,
)

__all__ = [
    "IDEALTrainer",
    "IDEALTrainerNoMirroring",
    "IDEALTrainer_5epochs",
    "IDEALTrainer_100epochs",
    "IDEALTrainer_250epochs",
    "IDEALTrainer_noConsistency",
    "IDEALTrainer_noPretraining",
]
