from nnunet_semcl.methods.semcl.trainer import SemCLTrainer
from nnunet_semcl.methods.semcl.variants import (
    SemCLTrainer_5epochs,
    SemCLTrainer_100epochs,
    SemCLTrainer_250epochs,
    SemCLTrainer_noUnlabelled,
    SemCLTrainerNoMirroring,
)

__all__ = [
    "SemCLTrainer",
    "SemCLTrainerNoMirroring",
    "SemCLTrainer_5epochs",
    "SemCLTrainer_100epochs",
    "SemCLTrainer_250epochs",
    "SemCLTrainer_noUnlabelled",
]
